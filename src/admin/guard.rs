//! Who may ask what: tokens with their rights, and protection against a browser that a foreign page has sent.
//!
//! A page on another site can make an operator's browser send requests to a loopback address, and with a name of its own that resolves
//! to it (DNS rebinding) even read the answers. So a request must name as `Host` something that no foreign page can have as its origin: an address,
//! `localhost`, or the node; a write's `Origin` must be that same host; and a write must say `application/json`, which a plain form cannot. A valid token proves as much: a foreign page does not know it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header, uri::Authority};

use super::{Config, Right, Token, config::Denied, problem::Problem, server::Control};
use crate::front::ListenAddress;

/// Who asks, as the audit line names it; in the extensions of every request that passed.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) String);

/// Lets a request through to its handler, or answers why not.
pub(super) async fn check(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    match judge(&control, path, request.method(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn judge(control: &Control, path: &str, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
    let config = &control.parts.config;
    let writes = !matches!(*method, Method::GET | Method::HEAD);
    let Some(right) = right(path, config.metrics_token) else { return Ok(Caller("none".into())) };
    let token = authorise(config, right, headers)?;
    if token.is_none() && !control.unix {
        host(headers, &config.address, &control.parts.node)?;
    }
    if writes {
        origin(headers)?;
        json(headers)?;
    }
    Ok(Caller(token.map_or_else(|| "none".into(), |token| token.name.clone())))
}

/// The right that a path needs; `None` = anybody's.
fn right(path: &str, metrics_token: bool) -> Option<Right> {
    match path {
        "/livez" | "/readyz" | "/healthz" => None,
        "/metrics" => metrics_token.then_some(Right::Read),
        "/purge" => Some(Right::Purge),
        "/upstreams/{upstream}/peers/{id}" => Some(Right::Drain),
        // An unknown path answers with a list, which is for readers too.
        _ => Some(Right::Read),
    }
}

/// The token that the request carries, where tokens exist.
fn authorise<'a>(config: &'a Config, right: Right, headers: &HeaderMap) -> Result<Option<&'a Token>, Problem> {
    // `metrics_token` without tokens shuts `/metrics` rather than open it.
    if config.tokens.is_empty() && !(right == Right::Read && config.metrics_token) {
        return Ok(None);
    }
    config.token(right, headers).map(Some).map_err(|denied| match denied {
        Denied::Missing => {
            let detail = "a token is needed: send `Authorization: Bearer TOKEN` with one of admin.tokens";
            Problem::new(StatusCode::UNAUTHORIZED, detail).with_challenge("Bearer realm=\"eduham-edge\"")
        }
        Denied::Unknown => {
            let detail = "this is none of admin.tokens; is it the current one, sent as `Authorization: Bearer TOKEN`?";
            Problem::new(StatusCode::UNAUTHORIZED, detail)
                .with_challenge("Bearer realm=\"eduham-edge\", error=\"invalid_token\"")
        }
        Denied::NotAllowed(name) => {
            let right: &str = right.into();
            let detail =
                format!("token `{name}` does not allow `{right}`; add it to the token's `allow` or use another");
            Problem::new(StatusCode::FORBIDDEN, detail)
                .with_challenge("Bearer realm=\"eduham-edge\", error=\"insufficient_scope\"")
        }
    })
}

fn host(headers: &HeaderMap, address: &ListenAddress, node: &str) -> Result<(), Problem> {
    let named = authority(headers);
    let own = named.as_ref().is_some_and(|authority| {
        let host = authority.host();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            // An unspecified address is reached by any of the machine's. A page cannot have this node's address as its origin.
            Ok(ip) => match address {
                ListenAddress::Tcp(own) => own.ip().is_unspecified() || ip == own.ip() || ip.is_loopback(),
                ListenAddress::Unix(_) => true,
            },
            Err(_) => host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(node),
        }
    });
    if own {
        return Ok(());
    }
    let detail = "`Host` does not name this node; ask by its address or as `localhost`, or send a token";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    Authority::try_from(headers.get(header::HOST)?.as_bytes()).ok()
}

fn origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let from = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    let to = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if from.zip(to).is_some_and(|(from, to)| from.eq_ignore_ascii_case(to)) {
        return Ok(());
    }
    let detail =
        "`Origin` is another site than `Host`; changes are accepted only from the node's own pages or from no page";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

fn json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "send `Content-Type: application/json` with a JSON body";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}
