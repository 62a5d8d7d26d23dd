//! Cache groups (RFC 9875): what an origin stores together, an unsafe request invalidates together.

use http::{HeaderMap, HeaderName, Method};
use sfv::{BareItem, ListEntry, Parser};

use super::{invalidate::is_safe, reason::Reason};

pub(super) const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Groups of one response, or invalidated by one; RFC 9875 2 asks for 32 at least.
pub const GROUPS_MAX: usize = 128;
/// Bytes of the name of one group; RFC 9875 2 asks for 32 at least.
pub const GROUP_BYTES_MAX: usize = 256;

/// The groups that a response is in: strings, case-sensitive, each once. A field that is no list of strings is as if it were not
/// there (RFC 9651 4.2); parameters say nothing.
///
/// # Errors
/// `CacheGroups` over a limit: a response of which an invalidation would not know all groups is not stored.
pub(super) fn parse(fields: &HeaderMap) -> Result<Box<[Box<str>]>, Reason> {
    let groups = members(fields, &CACHE_GROUPS);
    if groups.len() > GROUPS_MAX || groups.iter().any(|group| group.len() > GROUP_BYTES_MAX) {
        return Err(Reason::CacheGroups);
    }
    Ok(groups.into())
}

/// The groups on the same origin that the answer to an unsafe request invalidates (RFC 9875 3); over a limit no response could
/// be in them.
pub fn invalidated_groups(method: &Method, fields: &HeaderMap) -> Vec<Box<str>> {
    if is_safe(method) {
        return Vec::new();
    }
    let mut groups = members(fields, &CACHE_GROUP_INVALIDATION);
    groups.retain(|group| group.len() <= GROUP_BYTES_MAX);
    groups.truncate(GROUPS_MAX);
    groups
}

/// What a group is known by: its name belongs to one origin (RFC 9875 2.1), `scheme://host:port` as keys write it. A line end is
/// in neither, nor in any surrogate key, whose table it shares.
pub fn group_text(origin: &str, group: &str) -> String {
    format!("{origin}\n{group}")
}

fn members(fields: &HeaderMap, name: &HeaderName) -> Vec<Box<str>> {
    let lines: Vec<&[u8]> = fields.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let Ok(list) = Parser::new(&lines.join(&b", "[..])).parse::<sfv::List>() else { return Vec::new() };
    let strings = list.iter().map(|member| match member {
        ListEntry::Item(item) => match &item.bare_item {
            BareItem::String(text) => Some(text.as_str().into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    let mut groups: Vec<Box<str>> = strings.collect::<Option<_>>().unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(name: &'static str, lines: &[&str]) -> HeaderMap {
        let name = HeaderName::from_static(name);
        lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn a_list_of_strings_names_groups_and_anything_else_names_none() {
        let rows: [(&[&str], &[&str]); 8] = [
            (&[r#""a", "b";x=1, "a""#], &["a", "b"]),
            (&[r#""b""#, r#""A", "a""#], &["A", "a", "b"]),
            (&[""], &[]),
            (&["a, b"], &[]),
            (&[r#""a", b"#], &[]),
            (&[r#""a", 1"#], &[]),
            (&[r#"("a" "b")"#], &[]),
            (&[r#""a", "#], &[]),
        ];
        for (lines, expected) in rows {
            let groups = parse(&of("cache-groups", lines)).unwrap();
            let groups: Vec<&str> = groups.iter().map(AsRef::as_ref).collect();
            assert_eq!(groups, expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_in_more_groups_than_can_be_known_is_not_stored() {
        let many = |n: usize| (0..n).map(|i| format!("\"{i}\"")).collect::<Vec<_>>().join(", ");
        assert_eq!(parse(&of("cache-groups", &[&many(GROUPS_MAX)])).unwrap().len(), GROUPS_MAX);
        assert_eq!(parse(&of("cache-groups", &[&many(GROUPS_MAX + 1)])), Err(Reason::CacheGroups));
        let long = |n: usize| format!("\"{}\"", "x".repeat(n));
        assert!(parse(&of("cache-groups", &[&long(GROUP_BYTES_MAX)])).is_ok());
        assert_eq!(parse(&of("cache-groups", &[&long(GROUP_BYTES_MAX + 1)])), Err(Reason::CacheGroups));
    }

    #[test]
    fn only_an_unsafe_request_invalidates_groups() {
        let fields = of("cache-group-invalidation", &[r#""catalogue", "course:7""#]);
        for (method, expected) in [(Method::GET, 0), (Method::HEAD, 0), (Method::POST, 2), (Method::DELETE, 2)] {
            assert_eq!(invalidated_groups(&method, &fields).len(), expected, "{method}");
        }
    }
}
