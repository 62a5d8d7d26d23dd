//! `POST /purge`: a body is read into a [`PurgeRequest`] that is within bounds, or refused with the entry that is wrong.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use http::{StatusCode, Uri};
use serde::Deserialize;

use super::{
    PurgeReceipt, PurgeRequest, PurgeUrl,
    guard::Caller,
    problem::{Problem, whole},
    server::{BODY_BYTES_MAX, Control},
};
use crate::{config::duration, telemetry::diagnostics::AUDIT};

/// URLs and surrogate keys of one request; with `PURGED_MAX` of the store remembered, a hundred such requests may come
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
) -> Result<Json<PurgeReceipt>, Problem> {
    let body: Body = serde_json::from_slice(&whole(body, BODY_BYTES_MAX)?).map_err(|error| {
        bad(format!("the body is not a purge such as {{\"urls\":[\"https://a.test/x\"]}}: {error}"))
    })?;
    let request = request(body)?;
    let what =
        format!("{} urls, {} surrogate keys, all: {}", request.urls.len(), request.surrogate_keys.len(), request.all);
    let soft = request.soft;
    let receipt = control.parts.purge.purge(request).await.map_err(|refusal| bad(refusal.to_string()))?;
    tracing::info!(target: AUDIT, token = caller, action = "purge", what, soft, id = receipt.id);
    Ok(Json(receipt))
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn request(body: Body) -> Result<PurgeRequest, Problem> {
    let unavailable = [
        (!body.prefixes.is_empty(), "prefixes"),
        (!body.hosts.is_empty(), "hosts"),
        (body.dry_run, "dry_run"),
        (body.ignore_query, "ignore_query"),
    ];
    if let Some((_, key)) = unavailable.iter().find(|(used, _)| *used) {
        let detail = format!("`{key}` is not available yet; purge by `urls`, `surrogate_keys` or `all`");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let targets = body.urls.len() + body.surrogate_keys.len();
    if targets == 0 && !body.all {
        return Err(bad("this names nothing: give `urls`, `surrogate_keys` or `\"all\":true`".into()));
    }
    if targets > TARGETS_MAX {
        return Err(bad(format!("{targets} urls and surrogate keys; send at most {TARGETS_MAX} at once")));
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
    Ok(PurgeRequest {
        urls: urls.collect::<Result<_, _>>()?,
        surrogate_keys: body.surrogate_keys,
        all: body.all,
        soft: body.soft,
        wait: body.wait,
        timeout,
    })
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
