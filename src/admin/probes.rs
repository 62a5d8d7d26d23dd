//! `/livez`, `/readyz`, `/healthz`: should this node run on, and should it be sent traffic?

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use super::{UnreadyReason, UpstreamView, server::Control};

/// What a probe is told.
#[derive(Debug, Serialize)]
struct Report<'a> {
    status: Status,
    node: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasons: &'a [UnreadyReason],
    /// Those that are not well, with what is wrong.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    upstreams: BTreeMap<&'a str, &'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    /// Ready, but some upstream has no usable peer.
    Degraded,
    Unready,
}

/// The process answers: that is all there is to being alive.
pub(super) async fn live(State(control): State<Arc<Control>>) -> Response {
    let report = Report { status: Status::Ok, node: &control.parts.node, reasons: &[], upstreams: BTreeMap::default() };
    Json(report).into_response()
}

/// Ready is about this node alone: an upstream without a usable peer makes it `degraded`, and unready only if `admin.ready.require`
/// names it. Otherwise one dead pool would take every edge, with its cached pages, out of the load balancer.
pub(super) async fn ready(State(control): State<Arc<Control>>) -> Response {
    let parts = &control.parts;
    let reasons = parts.readiness.reasons();
    let upstreams = parts.upstreams.list();
    let required = &parts.config.ready_require;
    let down: BTreeMap<&str, &str> = upstreams
        .iter()
        .filter(|upstream| !upstream.usable)
        .map(|upstream| (name(upstream), "no usable peer"))
        .collect();
    let lacking = required.iter().any(|name| down.contains_key(name.as_str()));
    let (code, status) = match () {
        () if lacking || !reasons.is_empty() => (StatusCode::SERVICE_UNAVAILABLE, Status::Unready),
        () if !down.is_empty() => (StatusCode::OK, Status::Degraded),
        () => (StatusCode::OK, Status::Ok),
    };
    (code, Json(Report { status, node: &parts.node, reasons: &reasons, upstreams: down })).into_response()
}

fn name(upstream: &UpstreamView) -> &str {
    &upstream.name
}
