//! Errors as problem details (RFC 9457) with a sentence that says what to do.

use axum::{
    body::Bytes,
    extract::rejection::BytesRejection,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// `application/problem+json`
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    title: &'static str,
    #[serde(serialize_with = "code")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    endpoints: &'static [&'static str],
    /// `WWW-Authenticate`
    #[serde(skip)]
    challenge: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { title, status, detail: detail.into(), endpoints: &[], challenge: None }
    }

    /// Lists what could have been asked.
    pub(super) fn with_endpoints(mut self, endpoints: &'static [&'static str]) -> Self {
        self.endpoints = endpoints;
        self
    }

    /// Says how to authenticate (RFC 6750 section 3).
    pub(super) fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

/// The body, if it came whole and within `max` bytes.
pub(super) fn whole(body: Result<Bytes, BytesRejection>, max: usize) -> Result<Bytes, Problem> {
    body.map_err(|rejection| {
        let detail = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the body is larger than {max} bytes; send it in several requests")
            }
            _ => "the body did not come whole; send it again".to_owned(),
        };
        Problem::new(rejection.status(), detail)
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and a number always serialise.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

fn code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
