//! The lane: a fresh stored response that answers as it is, without anything to wait for.
//!
//! It is the beginning of the long way and asks the same questions, of `Exchange::choose_route` and
//! `Exchange::look_ahead`; only what it does with the answer is its own. The head is that of the first answer, kept as text
//! with holes for what differs. Whatever is not plain goes the long way, with what was found so far.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, Method,
    header::{AGE, AUTHORIZATION, CACHE_CONTROL, RANGE},
};

use super::{
    Edge,
    decision::Decision,
    deliver::without_body,
    downstream::{Length, OutgoingHead},
    exchange::{Begun, Exchange, Parked},
    fields::{CACHE_STATUS, X_REQUEST_ID},
    log::Receipt,
    lookup::Ahead,
    receive::Connection,
    routing::{Action, Route},
};
use crate::{
    cache,
    store::{Body, Stored},
    wire::{DIGITS_MAX, Ending, HOLES_MAX, Prebuilt, decimal, io::Outgoing},
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
        if is_plain && route.websocket.is_none() && route.cache.is_some() { Self::Cacheable } else { Self::Ask }
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
    /// found. Who takes it writes its [head](Self::write_head) and its body, and [records](Answered::record) it.
    pub fn hit(&mut self) -> Option<Hit> {
        if self.refusal.is_some() { None } else { self.exchange.hit() }
    }

    /// Forgets what was found, for a request that cannot go on at once: until it does, a purge may come, and time passes.
    pub fn look_again(&mut self) {
        self.exchange.ahead = None;
        self.exchange.trace.decision = Decision::default();
    }

    /// The same, after a wait for the client: how long it took to take the answers before this one is no time of this one, as it is
    /// none of a request that is read after them.
    pub fn begin_again(&mut self, now: Instant) {
        self.look_again();
        self.exchange.request.started = now;
    }

    /// The head of a hit, as values.
    pub fn head(&self, hit: &Hit) -> OutgoingHead {
        let meta = &hit.stored.meta;
        let fields = self.exchange.reusing(meta, hit.now);
        OutgoingHead { status: meta.status, fields, length: hit.announced(), close: false }
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
        let number = |number: u64, room| -> &[u8] { decimal(number, room) };
        let fillings: [&[u8]; HOLES_MAX] = [
            number(hit.age, age),
            number(hit.ttl, ttl),
            exchange.request.id.as_bytes(),
            hit.max_age.map_or(&[], |seconds| number(seconds, max_age)),
        ];
        let version = exchange.request.version;
        let (framing, announced_length) = hit.announced().framing(version);
        prebuilt.write(out, &fillings, Ending { version, framing, announced_length, keep_alive });
    }
}

/// A hit on its way out.
pub struct Answered {
    receipt: Receipt,
    /// All of it, where it is recorded.
    request: Option<Box<Parked>>,
}

impl Answered {
    /// What is kept of a request that a hit answers, until that is written.
    pub fn of(begun: Begun<'_>) -> Self {
        let receipt = begun.exchange.receipt();
        let is_recorded = begun.exchange.edge.access.enabled();
        Self { receipt, request: is_recorded.then(|| Box::new(begun.park())) }
    }

    /// The end of it: whether its client was there to the end, so many bytes of body, and when its first and its last byte
    /// were written.
    pub fn record(self, edge: &Arc<Edge>, connection: &Connection, client_gone: bool, sent: u64, times: [Instant; 2]) {
        let Self { mut receipt, request } = self;
        let [first, last] = times;
        let first = first.saturating_duration_since(receipt.started);
        receipt.first_byte = Some(first);
        receipt.metrics.lane_requests.inc();
        let status = receipt.count(client_gone, sent, last);
        if let Some(request) = request {
            let exchange = &mut request.resume(edge, connection).exchange;
            exchange.trace.first_byte = Some(first);
            exchange.note_end(client_gone, 0, sent);
            exchange.write_record(status, None);
        }
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
        let policy = route.cache.as_ref()?;
        let ahead = self.look_ahead(policy, false);
        let Some((stored, body, now)) = self.at_hand(&ahead, is_get) else {
            self.ahead = Some(Box::new(ahead));
            return None;
        };
        self.note_reused(&stored.meta, now, None);
        self.trace.status = stored.meta.status.as_u16();
        self.note_reused_head(&stored.meta, now);
        let (age, ttl) = (self.trace.age.unwrap_or_default(), self.trace.ttl.unwrap_or_default());
        Some(Hit {
            age: age.as_secs(),
            ttl: ttl.unsigned_abs(),
            now,
            max_age: policy.browser_ttl.map(|ttl| cache::browser_max_age(ttl, age)),
            body,
            stored,
        })
    }

    /// What is fresh and here as a whole, and when it was found fresh.
    fn at_hand(&self, ahead: &Ahead, is_get: bool) -> Option<(Arc<Stored>, Pieces, SystemTime)> {
        let Ahead::Looked(look) = ahead else { return None };
        let (found, now) = look.findings.fresh()?;
        let stored = &found.stored;
        if self.asking().has_codings(stored) {
            // Which of its codings is the answer, the long way says.
            return None;
        }
        let body = match &stored.body {
            _ if !is_get || without_body(stored.meta.status) => Pieces::None,
            Body::Inline(bytes) => Pieces::One(bytes.clone()),
            Body::Parts(_) => Pieces::Many(self.edge.store.in_memory(stored)?),
        };
        Some((Arc::clone(stored), body, now))
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

    /// What its head says of its body.
    fn announced(&self) -> Length {
        let length = self.stored.body.length();
        match &self.body {
            Pieces::None => Length::None { announced: (!without_body(self.stored.meta.status)).then_some(length) },
            Pieces::One(_) | Pieces::Many(_) => Length::Known(length),
        }
    }

    /// The body, in order.
    pub fn push_to(self, out: &mut Outgoing) {
        match self.body {
            Pieces::None => {}
            Pieces::One(one) => out.push(one),
            Pieces::Many(many) => out.extend(many),
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
