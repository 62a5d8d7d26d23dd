//! The room of a request, where its route keeps rooms together.

use std::{borrow::Cow, sync::Arc};

use super::{
    exchange::Exchange,
    receive::Request,
    route::{cookie_values, path_parameter, query_values},
    routing::{Route, StickyElse, StickySource},
    synth::Refusal,
};

/// Bytes of a room's name; longer, and the client is refused. Names of rooms are identifiers, not texts.
const ROOM_BYTES_MAX: usize = 128;

impl Exchange<'_> {
    /// The value that keeps this request with its like; none where the route is not sticky or goes anywhere.
    pub fn sticky(&self, route: &Arc<Route>) -> Result<Option<String>, Refusal> {
        room(&self.request, route)
    }
}

/// As [`Exchange::sticky`], of any request.
pub fn room(request: &Request, route: &Route) -> Result<Option<String>, Refusal> {
    let Some(sticky) = &route.sticky else { return Ok(None) };
    for source in &sticky.by {
        let found: Option<Cow<'_, str>> = match source {
            StickySource::Path(name) => path_parameter(&route.matches.paths, request.target.path(), name).map(decoded),
            StickySource::Query(name) => query_values(request.target.query(), name).next().map(decoded),
            StickySource::Cookie(name) => cookie_values(&request.fields, name).next().map(Cow::from),
            StickySource::Header(name) => {
                request.fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
            }
        };
        if let Some(room) = found {
            return if is_room(&room) { Ok(Some(room.into_owned())) } else { Err(Refusal::BadRoom) };
        }
    }
    match sticky.otherwise {
        StickyElse::ClientIp => Ok(request.client_ip.map(|ip| ip.to_string())),
        StickyElse::Random => Ok(None),
        StickyElse::Refuse => Err(Refusal::NoRoom),
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

fn is_room(room: &str) -> bool {
    (1..=ROOM_BYTES_MAX).contains(&room.len())
        && room.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:~-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::is_room;

    #[test]
    fn a_room_is_a_short_plain_name() {
        for (room, expected) in
            [("a", true), ("A-z.0_9:~", true), ("", false), ("a b", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_room(room), expected, "{room:?}");
        }
        assert!(is_room(&"x".repeat(128)));
        assert!(!is_room(&"x".repeat(129)));
    }
}
