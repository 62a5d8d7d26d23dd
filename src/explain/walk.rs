//! The part of the way that does not depend on what is stored: from the request to its cache key.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    Explanation, KeyTold, Outcome, PassedOver, RequestTold, RouteTold, Scene,
    changes::{self, Facts},
    coding,
    request::{self, Ask, AskError, Taken},
    rules,
    telling::Telling,
};
use crate::{
    cache::{self, Key, Negotiated, Policy, RequestDirectives, RequestView},
    proxy::{
        decision::{Routed, Step},
        route::Asked,
        routing::{Action, Route},
        sticky,
    },
};

/// Routes before the chosen one that are told; there may be ten thousand.
const PASSED_OVER_MAX: usize = 20;

/// An explanation in the making.
pub(super) struct Walk<'a> {
    pub(super) telling: Telling<'a>,
    pub(super) taken: Taken,
    route: Option<Arc<Route>>,
    passed_over: Vec<PassedOver>,
    key: Option<KeyTold>,
}

/// What the rest of the way needs.
pub(super) struct Cached {
    pub(super) route: Arc<Route>,
    pub(super) policy: Arc<Policy>,
    pub(super) key: Key,
    pub(super) directives: RequestDirectives,
    /// In which coding the request is answered from the store.
    pub(super) negotiated: Negotiated,
}

impl<'a> Walk<'a> {
    pub(super) fn new(scene: Scene<'a>, ask: &Ask) -> Result<Self, AskError> {
        let taken = request::take(&scene, ask)?;
        Ok(Self { telling: Telling::new(scene), taken, route: None, passed_over: Vec::new(), key: None })
    }

    /// Walks to the key; what comes of it where the way ends before. `stopped`: the node answers nothing now.
    pub(super) fn until_key(&mut self, stopped: bool) -> Result<Cached, Outcome> {
        let places = &self.telling.scene.config.places;
        let line = format!("{} {}", self.taken.request.method, self.taken.request.target.received());
        if let Some(refusal) = &self.taken.refusal {
            let told = format!("{}: {refusal}", refusal.status().as_u16());
            self.telling.push(Step::Route(Routed::Refused));
            self.telling.tell(rules::RECEIVE, line, told, None);
            return Err(Outcome::Refused);
        }
        let target = self.taken.request.target.path_and_query().to_owned();
        self.telling.tell(rules::RECEIVE, line, format!("taken as {target}"), None);
        if stopped {
            let place = places.key("fleet.when_cut_off");
            self.telling.tell(rules::CUT_OFF, "this node is cut off from its fleet", "503, to everybody", Some(place));
            return Err(Outcome::Refused);
        }
        if self.taken.request.method.as_str() == "PURGE" {
            let place = places.key("admin.tokens");
            let (outcome, told) = match self.telling.scene.config.admin.may_purge(&self.taken.request.fields) {
                Ok(_) => (Outcome::AnsweredHere, "its URL is purged".to_owned()),
                Err(status) => (Outcome::Refused, format!("{}: no token that allows it", status.as_u16())),
            };
            self.telling.tell(rules::PURGE, "the method PURGE", told, Some(place));
            return Err(outcome);
        }
        if self.taken.connection.redirect_to_https {
            let place = places.key("server.listeners");
            self.telling.push(Step::Route(Routed::Redirect));
            self.telling.tell(rules::HTTPS, "came by http", "308 to https", Some(place));
            return Err(Outcome::AnsweredHere);
        }
        let route = self.choose()?;
        let name = route.name.as_str();
        match &route.action {
            Action::Respond(respond) => {
                let (status, place) = (respond.status.as_u16(), places.of_route(name, "respond"));
                self.telling.push(Step::Route(Routed::Respond));
                self.telling.tell(rules::ANSWER, "respond", format!("{status} by the edge itself"), place);
                return Err(Outcome::AnsweredHere);
            }
            Action::Redirect(redirect) => {
                let (status, place) = (redirect.status.as_u16(), places.of_route(name, "redirect"));
                self.telling.push(Step::Route(Routed::Redirect));
                self.telling.tell(rules::ANSWER, "redirect", format!("{status} to {}", redirect.to), place);
                return Err(Outcome::AnsweredHere);
            }
            Action::Upstream(_) => {}
        }
        if route.sticky.is_some() {
            let place = places.of_route(name, "sticky.by");
            let (outcome, refused) = match sticky::room(&self.taken.request, &route) {
                Ok(Some(room)) => (format!("kept together with {room}"), false),
                Ok(None) => ("any peer".to_owned(), false),
                Err(refusal) => (format!("{}: {refusal}", refusal.status().as_u16()), true),
            };
            self.telling.tell(rules::STICKY, "the sources of the room", outcome, place);
            if refused {
                self.telling.push(Step::Route(Routed::Refused));
                return Err(Outcome::Refused);
            }
        }
        if route.websocket.is_some() && self.taken.request.wants_websocket() {
            let place = places.of_route(name, "websocket");
            self.telling.push(Step::Route(Routed::Socket));
            self.telling.tell(rules::WEBSOCKET, "Upgrade: websocket", "a socket, if the peer agrees", place);
            return Err(Outcome::Socket);
        }
        let body_max = route.limits.body_bytes.unwrap_or(self.telling.scene.config.server.limits.body_bytes);
        if let Some(length) = self.taken.body_length.filter(|length| *length > body_max) {
            let written = route.limits.body_bytes.is_some();
            let own = written.then(|| places.of_route(name, "limits.body_bytes")).flatten();
            let place = own.or_else(|| Some(places.key("server.limits.body_bytes")));
            self.telling.push(Step::Route(Routed::Refused));
            self.telling.tell(
                rules::BODY,
                format!("Content-Length: {length}"),
                format!("413: more than {body_max} bytes"),
                place,
            );
            return Err(Outcome::Refused);
        }
        let Some(policy) = route.cache.clone() else {
            let place = places.of_route(name, "cache");
            let policies = &self.telling.scene.config.policies;
            let change = policies.first().zip(place.clone()).map(|(policy, place)| changes::cached(policy, place));
            self.telling.push(Step::Route(Routed::Uncached));
            self.telling.tell(rules::NO_POLICY, "cache: none", "passed to the origin and back, nothing stored", place);
            if let Some(told) = self.telling.steps.last_mut() {
                told.changes.extend(change);
            }
            return Err(Outcome::Passed);
        };
        self.telling.push(Step::Route(Routed::Cached));
        self.under(route, policy)
    }

    fn choose(&mut self) -> Result<Arc<Route>, Outcome> {
        let (scene, request) = (self.telling.scene, &self.taken.request);
        let places = &scene.config.places;
        let asked = Asked {
            method: &request.method,
            scheme: request.scheme,
            host: request.host(),
            path: request.target.path(),
            query: request.target.query(),
            fields: &request.fields,
            client_ip: request.client_ip,
            listener: &self.taken.connection.listener,
        };
        let passed = scene.router.passed_over(&asked);
        let count = passed.len();
        let told = passed.iter().skip(count.saturating_sub(PASSED_OVER_MAX)).map(|(route, condition)| {
            let key = condition.key(&route.matches);
            PassedOver { route: route.name.clone(), place: places.of_route(&route.name, &key), key }
        });
        self.passed_over = told.collect();
        let host = request.host().unwrap_or("no host").to_owned();
        match scene.router.choose(&asked) {
            Some(choice) => {
                let route = Arc::clone(&choice.route);
                let place = places.route_named(&route.name);
                let input = format!("{host}{}", request.target.path());
                let outcome = format!("route \"{}\", {count} before it did not match", route.name);
                self.telling.tell(rules::ROUTE, input, outcome, place);
                self.route = Some(Arc::clone(&route));
                Ok(route)
            }
            None => {
                let input = format!("{host}{}", request.target.path());
                self.telling.push(Step::Route(Routed::NoRoute));
                let place = places.key("routes");
                self.telling.tell(rules::NO_ROUTE, input, format!("404: none of {count} routes matches"), Some(place));
                Err(Outcome::Refused)
            }
        }
    }

    /// On a route with a policy.
    fn under(&mut self, route: Arc<Route>, policy: Arc<Policy>) -> Result<Cached, Outcome> {
        let places = &self.telling.scene.config.places;
        let fields = self.taken.request.fields.clone();
        let method = self.taken.request.method.clone();
        let query = self.taken.request.target.query().map(str::to_owned);
        let view = RequestView { method: &method, fields: &fields };
        let nothing = HeaderMap::new();
        if let Some((fwd, reason)) = cache::aside(&view, query.as_deref(), self.taken.has_body, &policy) {
            let facts =
                Facts::of_request(self.telling.scene, &route.name, &policy, &fields, query.as_deref(), &nothing);
            self.telling.push(Step::Aside(fwd, reason));
            self.telling.tell_reason(
                reason,
                format!("{method}, its fields and query"),
                "neither looked up nor stored",
                &facts,
            );
            return Err(Outcome::Bypassed);
        }
        let place = places.of_route(&route.name, "cache");
        self.telling.tell(rules::TAKES_PART, format!("{method}, policy {}", policy.name), "looked up", place);
        let directives = cache::directives(&fields, &policy);
        cache::normalise_language(&mut self.taken.request.fields, &policy);
        let negotiated = cache::normalise_encoding(&mut self.taken.request.fields, &directives, &policy);
        if let Some(compress) = &policy.compress {
            coding::negotiated(&mut self.telling, &route.name, compress, &fields, negotiated);
        }
        let (request, seed) = (&self.taken.request, self.telling.scene.seed);
        let key = Key::new(
            seed.unwrap_or_default(),
            request.scheme.as_str(),
            &request.authority.host,
            request.port(),
            request.target.path(),
            query.as_deref(),
            &request.fields,
            &policy,
        );
        let forwarded = cache::keyed_query(query.as_deref(), &policy).map(|query| query.into_owned());
        let dropped = forwarded != query;
        self.key = Some(KeyTold {
            text: key.text().to_owned(),
            hash: seed.map(|_| format!("{:032x}", key.hash())),
            keyed_query: dropped.then(|| forwarded.unwrap_or_default()),
        });
        let rule = if policy.query.only.is_some() { "key.query.only" } else { "key.query.ignore" };
        let place = dropped.then(|| self.telling.place(&route.name, rule)).flatten();
        let outcome = if dropped { "a part of the query is dropped" } else { "all of the query is kept" };
        self.telling.tell(rules::KEY, key.text(), outcome, place);
        Ok(Cached { route, policy, key, directives, negotiated })
    }

    /// The explanation of a way that has ended.
    pub(super) fn ended(self, outcome: Outcome) -> Explanation {
        let request = &self.taken.request;
        let url = format!("{}://{}{}", request.scheme.as_str(), request.authority, request.target.path_and_query());
        let route = self.route.as_ref().map(|route| RouteTold {
            name: route.name.clone(),
            place: self.telling.scene.config.places.route_named(&route.name),
            upstream: route.action.upstream().map(str::to_owned),
            policy: route.cache.as_ref().map(|policy| policy.name.clone()),
        });
        Explanation {
            verdict: self.telling.verdict(outcome),
            request: RequestTold {
                method: request.method.to_string(),
                url,
                listener: self.taken.connection.listener.to_string(),
            },
            config: self.telling.scene.hash.to_owned(),
            route,
            passed_over: self.passed_over,
            key: self.key,
            cache_status: self.telling.cache_status(None),
            result: self.telling.result(),
            steps: self.telling.steps,
            next: None,
            store: None,
        }
    }
}
