//! Every answer that the edge makes itself: one table from what happened to status, words and `Proxy-Status`.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};

use super::{
    downstream::RequestBodyError,
    fields::{PROXY_STATUS, PSEUDONYM},
    ids::RequestId,
    target::BadTarget,
};
use crate::{store::Failure, wire::BadRequest};

/// Why the edge answers instead of an origin.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    #[error("{0}")]
    BadTarget(BadTarget),
    #[error("{0}")]
    Body(#[from] RequestBodyError),
    #[error("the request head did not come in time")]
    HeadTimeout,
    #[error("this method is not available through the edge")]
    MethodNotAllowed,
    /// `OPTIONS *`, or OPTIONS that may not be forwarded: not an error.
    #[error("the edge answers OPTIONS about itself")]
    OptionsOfTheEdge,
    #[error("the request has passed this edge before")]
    Loop,
    #[error("this connection's certificate does not serve the host")]
    Misdirected,
    #[error("no route takes this request")]
    NoRoute,
    #[error("the room's name must be 1 to 128 of A-Z a-z 0-9 . _ : ~ -")]
    BadRoom,
    #[error("this route needs a room")]
    NoRoom,
    #[error("PURGE needs `Authorization: Bearer TOKEN` with one of admin.tokens that may purge")]
    PurgeNotAllowed(StatusCode),
    /// `fleet.when_cut_off: stop`
    #[error("this edge cannot hear of purges and answers nothing until it can")]
    CutOff,
    #[error("this origin may not open sockets here")]
    OriginNotAllowed,
    #[error("this is not a WebSocket handshake of version 13")]
    BadHandshake,
    #[error("WebSocket is spoken here in version 13 alone")]
    WebSocketVersion,
    #[error("nothing stored can answer this, and the client wants nothing else")]
    OnlyIfCached,
    #[error("the fetch that this request waited for did not answer in time")]
    CollapseExpired,
    #[error("the stored response does not meet the precondition")]
    PreconditionFailed,
    #[error("{}", words(.0))]
    Origin(Failure),
}

/// A failed fetch in words.
fn words(failure: &Failure) -> &'static str {
    match failure.error {
        "destination_unavailable" => "no origin is usable at the moment",
        "connection_timeout" => "the origin could not be reached in time",
        "http_response_timeout" => "the origin did not answer in time",
        "connection_refused" => "the origin refused the connection",
        "connection_terminated" => "the origin closed the connection without an answer",
        "http_protocol_error" => "the origin's answer is not HTTP",
        "http_upgrade_failed" => "the origin did not accept the socket",
        _ => "the origin could not be asked",
    }
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(bad) => bad.status(),
            Self::BadTarget(_) | Self::BadRoom | Self::NoRoom | Self::BadHandshake => StatusCode::BAD_REQUEST,
            Self::Body(error) => error.status(),
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OptionsOfTheEdge => StatusCode::NO_CONTENT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::PurgeNotAllowed(status) => *status,
            Self::CutOff => StatusCode::SERVICE_UNAVAILABLE,
            Self::OnlyIfCached | Self::CollapseExpired => StatusCode::GATEWAY_TIMEOUT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Origin(failure) => failure.status,
        }
    }

    /// One word for metrics and the record.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(bad) => bad.reason(),
            Self::BadTarget(_) => "bad-target",
            Self::Body(error) => error.into(),
            Self::HeadTimeout => "head-timeout",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::OptionsOfTheEdge => "options",
            Self::Loop => "loop",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no-route",
            Self::BadRoom => "bad-room",
            Self::NoRoom => "no-room",
            Self::OriginNotAllowed => "origin-not-allowed",
            Self::PurgeNotAllowed(_) => "purge-not-allowed",
            Self::CutOff => "cut-off",
            Self::BadHandshake => "bad-handshake",
            Self::WebSocketVersion => "websocket-version",
            Self::OnlyIfCached => "only-if-cached",
            Self::CollapseExpired => "collapse-expired",
            Self::PreconditionFailed => "precondition-failed",
            Self::Origin(failure) => failure.error,
        }
    }

    /// `Proxy-Status` error type (RFC 9209 2.3).
    fn proxy_error(&self) -> Option<&'static str> {
        match self {
            Self::Origin(failure) => Some(failure.error),
            Self::Loop => Some("proxy_loop_detected"),
            Self::CollapseExpired => Some("http_response_timeout"),
            Self::NoRoute => Some("destination_not_found"),
            Self::CutOff => Some("proxy_internal_error"),
            Self::OptionsOfTheEdge | Self::PreconditionFailed | Self::OnlyIfCached => None,
            _ => Some("http_request_error"),
        }
    }

    /// May the connection carry on after this? Not where the framing of what follows is in doubt.
    pub fn keeps_connection(&self) -> bool {
        !matches!(self, Self::BadRequest(_) | Self::Body(_) | Self::HeadTimeout)
    }
}

/// An answer of ours.
#[derive(Debug)]
pub struct Synthetic {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub body: Bytes,
}

/// Words an error for people or for programs, by `Accept` (RFC 9457).
pub fn refuse(refusal: &Refusal, request: &HeaderMap, id: &RequestId) -> Synthetic {
    let status = refusal.status();
    let mut fields = HeaderMap::new();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(error) = refusal.proxy_error() {
        fields.insert(PROXY_STATUS, proxy_status(error));
    }
    if matches!(refusal, Refusal::MethodNotAllowed | Refusal::OptionsOfTheEdge) {
        fields.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if status == StatusCode::UNAUTHORIZED {
        fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"eduham-edge\""));
    }
    if matches!(refusal, Refusal::WebSocketVersion) {
        // RFC 6455 4.4, RFC 9110 15.5.22.
        fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::NO_CONTENT {
        return Synthetic { status, fields, body: Bytes::new() };
    }
    let title = status.canonical_reason().unwrap_or("Error");
    let wants_html = request
        .get_all(ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/html")));
    let body = if wants_html {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        page(status, title, &refusal.to_string(), id)
    } else {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "detail": refusal.to_string(),
            "reason": refusal.reason(),
            "request_id": id.as_str(),
        });
        problem.to_string()
    };
    Synthetic { status, fields, body: body.into() }
}

/// `Proxy-Status: eduham-edge; error=...`
pub fn proxy_status(error: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{PSEUDONYM}; error={error}")).expect("error types are tokens")
}

/// A redirect of ours.
pub fn redirect(status: StatusCode, to: &str) -> Synthetic {
    let mut fields = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(to) {
        fields.insert(LOCATION, location);
    }
    Synthetic { status, fields, body: Bytes::new() }
}

fn page(status: StatusCode, title: &str, detail: &str, id: &RequestId) -> String {
    let detail = detail.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{code} {title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}}\
         small{{color:#666}}</style>\n<h1>{title}</h1>\n<p>{code}: {detail}.</p>\n<p><small>{id}</small></p>\n</html>\n",
        code = status.as_u16(),
        id = id.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_page_and_programs_a_problem() {
        let id = RequestId::from_parts(1, 2);
        let mut request = HeaderMap::new();
        let problem = refuse(&Refusal::NoRoute, &request, &id);
        assert_eq!(problem.fields[CONTENT_TYPE], "application/problem+json");
        assert_eq!(problem.status, StatusCode::NOT_FOUND);
        request.insert(ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"));
        let page = refuse(&Refusal::NoRoute, &request, &id);
        assert_eq!(page.fields[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(page.body.starts_with(b"<!doctype html>"));
    }

    #[test]
    fn a_failed_origin_is_named_in_proxy_status() {
        let failure = Failure { status: StatusCode::BAD_GATEWAY, error: "connection_refused" };
        let answer = refuse(&Refusal::Origin(failure), &HeaderMap::new(), &RequestId::from_parts(1, 2));
        assert_eq!(answer.fields[PROXY_STATUS], "eduham-edge; error=connection_refused");
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    }
}
