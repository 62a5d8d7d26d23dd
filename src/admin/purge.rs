//! `POST /purge`: a body is read into a [`PurgeRequest`] that is within bounds, or refused with the entry that is wrong. And what
//! became of purges: `/purges`, `/fleet`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::{
    FleetView, PurgeReceipt, PurgeRefusal, PurgeRequest, PurgeUrl, PurgeView,
    guard::Caller,
    problem::{Problem, whole},
    server::{BODY_BYTES_MAX, Control},
};
use crate::config::duration;

/// Things that one request may name; with `PURGED_MAX` of the store remembered, a hundred such requests may come
/// before the oldest is forgotten.
pub(super) const TARGETS_MAX: usize = 1_000;

/// Bytes of one surrogate key: longer ones are never stored.
const SURROGATE_KEY_BYTES_MAX: usize = 256;

/// How long other nodes are waited for where the request does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that a request may say: below what the control listener gives a request.
const TIMEOUT_MAX: Duration = Duration::from_secs(25);

/// The body as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    urls: Vec<String>,
    surrogate_keys: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    all: bool,
    soft: bool,
    dry_run: bool,
    wait: bool,
    timeout: Option<String>,
    ignore_query: bool,
}

pub(super) async fn purge(
    State(control): State<Arc<Control>>,
    Extension(Caller(caller)): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<PurgeReceipt>), Problem> {
    let body: Body = serde_json::from_slice(&whole(body, BODY_BYTES_MAX)?).map_err(|error| {
        bad(format!("the body is not a purge such as {{\"urls\":[\"https://a.test/x\"]}}: {error}"))
    })?;
    let request = request(body)?;
    let receipt = control.parts.purge.purge(request, caller).await.map_err(refused)?;
    let status = if receipt.fleet.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok((status, Json(receipt)))
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    purges: Vec<PurgeView>,
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<List> {
    Json(List { purges: control.parts.purge.purges() })
}

pub(super) async fn find(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<PurgeView>, Problem> {
    let found = control.parts.purge.find(id).await;
    found.map(Json).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "this node knows no purge of this id; GET /purges lists the last ones")
    })
}

pub(super) async fn fleet(State(control): State<Arc<Control>>) -> Json<FleetView> {
    Json(control.parts.purge.fleet().await)
}

fn refused(refusal: PurgeRefusal) -> Problem {
    let status = match refusal {
        PurgeRefusal::Url { .. } | PurgeRefusal::Prefix { .. } => StatusCode::BAD_REQUEST,
        PurgeRefusal::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, refusal.to_string())
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn request(body: Body) -> Result<PurgeRequest, Problem> {
    let targets = body.urls.len() + body.surrogate_keys.len() + body.prefixes.len() + body.hosts.len();
    if targets == 0 && !body.all {
        return Err(bad(
            "this names nothing: give `urls`, `surrogate_keys`, `prefixes`, `hosts` or `\"all\":true`".into()
        ));
    }
    if targets > TARGETS_MAX {
        return Err(bad(format!("{targets} urls, keys, prefixes and hosts; send at most {TARGETS_MAX} at once")));
    }
    if body.ignore_query && body.urls.is_empty() {
        return Err(bad("`ignore_query` is about `urls`, and there are none".into()));
    }
    for (index, key) in body.surrogate_keys.iter().enumerate() {
        if key.is_empty()
            || key.len() > SURROGATE_KEY_BYTES_MAX
            || key.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(bad(format!(
                "surrogate_keys[{index}] must be 1 to {SURROGATE_KEY_BYTES_MAX} bytes without spaces or controls"
            )));
        }
    }
    let timeout = body.timeout.as_deref().map_or(Ok(TIMEOUT), duration);
    let timeout = timeout.map_err(|reason| bad(format!("`timeout`: {reason}")))?;
    if timeout > TIMEOUT_MAX {
        return Err(bad(format!("`timeout` may be at most {TIMEOUT_MAX:?}")));
    }
    let urls = body.urls.iter().enumerate().map(|(index, text)| {
        url(text).map_err(|reason| bad(format!("urls[{index}] {reason}; write it as `https://host/path?query`")))
    });
    let prefixes = body.prefixes.iter().enumerate().map(|(index, text)| {
        let wrong = |reason| bad(format!("prefixes[{index}] {reason}; write it as `https://host/path`"));
        let prefix = url(text).map_err(wrong)?;
        if prefix.query.is_some() { Err(wrong("has a query, and a prefix ends before it")) } else { Ok(prefix) }
    });
    let hosts = body.hosts.iter().enumerate().map(|(index, text)| {
        host(text)
            .ok_or_else(|| bad(format!("hosts[{index}] is no host; write it as `a.test`, without scheme and port")))
    });
    Ok(PurgeRequest {
        urls: urls.collect::<Result<_, _>>()?,
        surrogate_keys: body.surrogate_keys,
        prefixes: prefixes.collect::<Result<_, _>>()?,
        hosts: hosts.collect::<Result<_, _>>()?,
        all: body.all,
        soft: body.soft,
        dry_run: body.dry_run,
        ignore_query: body.ignore_query,
        wait: body.wait,
        timeout,
    })
}

/// A host name or an address, in the form that keys have it.
fn host(text: &str) -> Option<String> {
    let authority: http::uri::Authority = text.parse().ok()?;
    let host = authority.host();
    if host != text {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

fn url(text: &str) -> Result<PurgeUrl, &'static str> {
    // `http::Uri` would drop a fragment in silence.
    if text.contains('#') {
        return Err("has a fragment, which no request has");
    }
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let default = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        Some(_) => return Err("is neither http nor https"),
        None => return Err("is not absolute"),
    };
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("names a user, which no stored response has");
    }
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() {
        return Err("has no host");
    }
    let after = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, after)| after);
    let port = match after.rsplit_once(':') {
        None | Some((_, "")) => None,
        Some(_) => Some(authority.port_u16().ok_or("has no valid port")?),
    };
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    Ok(PurgeUrl {
        host,
        port: port.filter(|port| *port != default),
        path: path.to_owned(),
        query: uri.query().map(str::to_owned),
    })
}
