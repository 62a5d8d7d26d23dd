//! `/upstreams`: the pools as they are, and what an operator wants of a peer.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    PeerCommand, UpstreamView,
    guard::Caller,
    problem::{Problem, whole},
    server::{BODY_BYTES_MAX, Control},
};
use crate::telemetry::diagnostics::AUDIT;

#[derive(Debug, Serialize)]
pub(super) struct List {
    upstreams: Vec<UpstreamView>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetState {
    state: PeerCommand,
    /// Of every edge; a node without a fleet is its own.
    #[serde(default)]
    fleet: bool,
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<List> {
    Json(List { upstreams: control.parts.upstreams.list() })
}

/// Answers with the upstream as it is afterwards.
pub(super) async fn set_state(
    State(control): State<Arc<Control>>,
    Extension(Caller(caller)): Extension<Caller>,
    Path((upstream, peer)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<UpstreamView>, Problem> {
    let wanted: SetState = serde_json::from_slice(&whole(body, BODY_BYTES_MAX)?).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("send {{\"state\":\"drain\"|\"ready\"|\"down\"}}: {error}"))
    })?;
    if wanted.fleet {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "`fleet` is not available yet; ask each node"));
    }
    let not_found = |reason: String| Problem::new(StatusCode::NOT_FOUND, reason);
    let upstreams = &control.parts.upstreams;
    upstreams.set_state(&upstream, &peer, wanted.state).map_err(|error| not_found(error.to_string()))?;
    let state: &str = wanted.state.into();
    tracing::info!(target: AUDIT, token = caller, action = "set-peer-state", upstream, peer, state);
    let view = upstreams.list().into_iter().find(|view| view.name == upstream);
    view.map(Json).ok_or_else(|| not_found(format!("upstream `{upstream}` is gone")))
}
