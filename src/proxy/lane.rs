//! The lane: a fresh stored response that answers as it is, without anything to wait for.
//!
//! It is the beginning of the long way and asks the same questions, of [`Exchange::choose_route`] and
//! [`Exchange::look_ahead`]; only what it does with the answer is its own. The head is that of the first answer, kept as text
//! with holes for what differs. Whatever is not plain goes the long way, with what was found so far.

use std::{sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, Method,
    header::{AGE, AUTHORIZATION, CACHE_CONTROL, RANGE},
};

use super::{
    decision::Decision,
    deliver::without_body,
    exchange::{Begun, Exchange},
    fields::{CACHE_STATUS, X_REQUEST_ID},
    lookup::{Ahead, Usable},
    routing::{Action, Route},
};
use crate::{
    cache::{self, Reuse},
    store::{Body, Stored},
    wire::{DIGITS_MAX, Ending, Framing, HOLES_MAX, Prebuilt, decimal},
};

/// What else than the cache has to say of a request before it may be answered from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: who has the key may have the answer.
    Cacheable,
    /// It must be asked: the long way does.
    Ask,
}

impl Verdict {
    /// Of a route, whatever is asked of it.
    pub fn of(route: &Route) -> Self {
        let is_plain = matches!(route.action, Action::Upstream(_)) && route.sticky.is_none();
        // Which of its codings is the answer, the long way says.
        let is_as_stored = route.cache.as_ref().is_some_and(|policy| policy.compress.is_none());
        if is_plain && route.websocket.is_none() && is_as_stored { Self::Cacheable } else { Self::Ask }
    }
}

/// A hit, all of it at hand.
pub struct Hit {
    stored: Arc<Stored>,
    /// When it was found fresh.
    now: SystemTime,
    /// Seconds.
    age: u64,
    /// Seconds; a hit that is fresh has some left.
    ttl: u64,
    /// What follows `max-age=`, where the policy says it.
    max_age: Option<u64>,
    body: Pieces,
}

/// The body of a hit. From here on nothing can be evicted under the answer.
enum Pieces {
    /// The method or the status wants none.
    None,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Begun<'_> {
    /// The stored response that answers a request without a body at once; `None`: the long way, which goes on with what was
    /// found. Who takes it writes its [head](Self::write_head) and its body, and [records](Self::record_hit) it.
    pub fn hit(&mut self) -> Option<Hit> {
        if self.refusal.is_some() { None } else { self.exchange.hit() }
    }

    /// Forgets what was found, for a request that cannot go on at once: until it does, a purge may come, and time passes.
    pub fn look_again(&mut self) {
        self.exchange.ahead = None;
        self.exchange.trace.decision = Decision::default();
    }

    /// Writes the head of a hit.
    pub fn write_head(&mut self, hit: &Hit, keep_alive: bool, out: &mut BytesMut) {
        let exchange = &mut self.exchange;
        let meta = &hit.stored.meta;
        let prebuilt = hit.stored.heads[usize::from(hit.max_age.is_some())].get_or_init(|| {
            let fields = exchange.reusing(meta, hit.now);
            Box::new(prebuild(meta.status, &fields, hit))
        });
        let mut digits = [[0; DIGITS_MAX]; 3];
        let [age, ttl, max_age] = &mut digits;
        let number = |number: u64, room| -> &[u8] { decimal(number, room).as_bytes() };
        let fillings: [&[u8]; HOLES_MAX] = [
            number(hit.age, age),
            number(hit.ttl, ttl),
            exchange.request.id.as_bytes(),
            hit.max_age.map_or(&[], |seconds| number(seconds, max_age)),
        ];
        let length = (!without_body(meta.status)).then(|| hit.stored.body.length());
        let (framing, announced_length) = match (&hit.body, length) {
            (Pieces::None, announced) => (Framing::None, announced),
            (_, length) => (Framing::Length(length.unwrap_or_default()), None),
        };
        prebuilt.write(
            out,
            &fillings,
            Ending { version: exchange.request.version, framing, announced_length, keep_alive },
        );
    }

    /// The end of a hit, of which so many bytes of body were to be sent.
    pub fn record_hit(&mut self, client_gone: bool, length: u64) {
        if let Some(metrics) = &self.exchange.trace.metrics {
            metrics.lane_requests.inc();
        }
        self.exchange.record(client_gone, 0, length);
    }
}

impl Exchange<'_> {
    fn hit(&mut self) -> Option<Hit> {
        let is_get = self.request.method == Method::GET;
        if !(is_get || self.request.method == Method::HEAD)
            || self.connection.redirect_to_https
            || !self.edge.has_lane()
            || self.edge.fleet.is_stopped()
            || !self.request.fields.keys().all(is_plain)
        {
            return None;
        }
        let route = self.choose_route()?;
        if Verdict::of(&route) == Verdict::Ask {
            return None;
        }
        let (policy, pool) = (route.cache.as_ref()?, self.snapshot.pools.get(route.action.upstream()?).cloned()?);
        let ahead = self.look_ahead(&route, policy, &pool, None, false);
        let Ahead::Looked(_, Some(Usable { found, reuse: Reuse::Fresh, now })) = &ahead else {
            self.ahead = Some(ahead);
            return None;
        };
        let (stored, now) = (Arc::clone(&found.stored), *now);
        let meta = &stored.meta;
        let body = match &stored.body {
            _ if !is_get || without_body(meta.status) => Pieces::None,
            Body::Inline(bytes) => Pieces::One(bytes.clone()),
            Body::Parts(_) => match self.edge.store.bytes(&stored, 0..stored.body.length()) {
                Some(pieces) => Pieces::Many(pieces),
                None => {
                    self.ahead = Some(ahead);
                    return None;
                }
            },
        };
        self.note_reused(meta, now, None);
        self.trace.status = meta.status.as_u16();
        self.trace.first_byte = Some(self.request.started.elapsed());
        if self.edge.access.enabled() {
            let fields = self.reusing(meta, now);
            self.note_head(&fields);
        }
        let age = meta.age(now);
        Some(Hit {
            age: age.as_secs(),
            ttl: meta.ttl(now).unsigned_abs(),
            now,
            max_age: policy.browser_ttl.map(|ttl| cache::browser_max_age(ttl, age)),
            body,
            stored,
        })
    }
}

impl Hit {
    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        match self.body {
            Pieces::None => 0,
            Pieces::One(_) | Pieces::Many(_) => self.stored.body.length(),
        }
    }

    /// The body, in order.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        let (one, many) = match self.body {
            Pieces::None => (None, Vec::new()),
            Pieces::One(one) => (Some(one), Vec::new()),
            Pieces::Many(many) => (None, many),
        };
        one.into_iter().chain(many)
    }
}

/// Says a request no more than what is to be answered? Conditions, ranges and credentials are looked at on the long way.
fn is_plain(name: &HeaderName) -> bool {
    !(name.as_str().starts_with("if-") || *name == RANGE || *name == AUTHORIZATION)
}

/// The head of this first answer, with holes for what will differ in the next.
fn prebuild(status: http::StatusCode, fields: &HeaderMap, hit: &Hit) -> Prebuilt {
    let length = |name: &HeaderName| fields.get(name).map_or(0, |value| value.len());
    let digits = |number: u64| decimal(number, &mut [0; DIGITS_MAX]).len();
    // `...; ttl=NUMBER` is the end of the field: a hit that is fresh needs no detail.
    let ttl = digits(hit.ttl);
    let holes = [
        (&AGE, 0, length(&AGE)),
        (&CACHE_STATUS, length(&CACHE_STATUS) - ttl, ttl),
        (&X_REQUEST_ID, 0, length(&X_REQUEST_ID)),
        (&CACHE_CONTROL, cache::BROWSER_PREFIX.len(), hit.max_age.map_or(0, digits)),
    ];
    let told = HOLES_MAX - usize::from(hit.max_age.is_none());
    Prebuilt::new(status, fields, &holes[..told])
}
