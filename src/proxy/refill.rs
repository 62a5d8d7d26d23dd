//! A fetch for the store, in a task of its own: it streams to every reader and outlives its client.

use std::{
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE},
};
use tokio::sync::mpsc;

use super::{
    Edge,
    fetch::{self, INTERIM_MAX, Interim, OriginRequest, OriginResponse, Payload, Seen},
};
use crate::{
    cache::{self, Arrival, Meta, Policy, Reason, RequestDirectives, RequestView, ResponseView, Span, VariantKey},
    store::{Broken, Coming, Failure, Fill, Found, Outcome, Place, Reader, Writing},
    telemetry::RouteMetrics,
    upstream::Pool,
    wire::Framing,
};

/// What the writer's client may be told before it has taken any of it: every interim response and the end.
pub const TOLD_MAX: usize = INTERIM_MAX + 1;

/// A reader's place in a fill and the head that it saw.
pub struct Filling {
    pub coming: Arc<Coming>,
    /// The head as the origin sent it, for the client whose request brought it. What is stored may lack fields
    /// (`no-cache="set-cookie"`) that are meant for that client.
    pub own: Option<HeaderMap>,
    pub reader: Reader,
}

/// Which bytes of the representation are asked for.
pub struct Ask {
    /// `Range`; `None`: all.
    pub range: Option<HeaderValue>,
    /// What they are a part of, where that is known.
    pub part_of: Option<PartOf>,
    /// Is it what the client itself asked for?
    pub is_the_clients: bool,
}

/// A representation of which more is asked for.
pub struct PartOf {
    pub meta: Meta,
    pub length: u64,
    pub condition: Condition,
}

/// What makes sure that it is still the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing can: there is no strong validator. An origin that sends all of it is what is hoped for.
    None,
    /// `If-Range`: the whole comes if not.
    Range,
    /// `If-Match` or `If-Unmodified-Since`: nothing comes if not.
    Match,
}

impl Ask {
    /// What is missing of what is there.
    pub fn missing(range: Range<u64>, part_of: PartOf) -> Self {
        let field = cache::range_field(&range, Some(part_of.length));
        Self { range: Some(field), part_of: Some(part_of), is_the_clients: false }
    }
}

impl PartOf {
    fn field(&self) -> Option<(HeaderName, HeaderValue)> {
        let validator = cache::strong_validator(&self.meta)?.clone();
        let name = match (self.condition, self.meta.etag()) {
            (Condition::None, _) => return None,
            (Condition::Range, _) => IF_RANGE,
            (Condition::Match, Some(_)) => IF_MATCH,
            (Condition::Match, None) => IF_UNMODIFIED_SINCE,
        };
        Some((name, validator))
    }
}

/// Everything that the task needs; nothing of the client's connection.
pub struct Refill {
    pub edge: Arc<Edge>,
    pub pool: Arc<Pool>,
    pub policy: Arc<Policy>,
    pub metrics: Arc<RouteMetrics>,
    pub ask: Ask,
    /// As it goes to the origin; conditionals and ranges of the client have no part in it.
    pub request: OriginRequest,
    /// The client's fields: what `Vary` selects by.
    pub selecting: HeaderMap,
    pub place: Place,
    pub fill_id: u128,
    pub fill: Arc<Fill>,
    /// What is stored and to be validated.
    pub validating: Option<Found>,
    /// Takes what is for the writer's own client, who may be gone; nobody's where the client does not wait.
    pub client: Option<mpsc::Sender<Told>>,
}

/// What the writer's own client gets to know of its fetch.
pub enum Told {
    /// An interim response: never stored, never shared.
    Interim(StatusCode, HeaderMap),
    /// The end: how it was asked, and what the client has for itself.
    Final(Seen, Own),
}

/// What of an answer is for the writer's client alone.
pub enum Own {
    /// Nothing: there is no answer, or all of it is in the store.
    Nothing,
    /// The head as the origin sent it.
    Head(HeaderMap),
    /// All of it, since it is not for sharing.
    Whole(Box<OriginResponse>),
}

/// Interim responses go to the writer's client.
struct ToClient<'a>(Option<&'a mpsc::Sender<Told>>);

impl Interim for ToClient<'_> {
    async fn relay(&mut self, status: StatusCode, fields: HeaderMap) {
        if let Some(client) = self.0 {
            // A client that is gone, or that has been told too much already, does without.
            let _ = client.try_send(Told::Interim(status, fields));
        }
    }
}

/// Ends a fill when the task does, also by a panic: nobody waits for ever, and the key is free again.
struct Ending {
    edge: Arc<Edge>,
    id: u128,
    fill: Arc<Fill>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.fill.decide(Outcome::Failed(Failure::INTERNAL));
        self.fill.finish(Err(Broken::Origin));
        self.edge.store.end_fill(self.id, &self.fill);
    }
}

impl Refill {
    /// Begins the fetch.
    pub fn spawn(self) {
        tokio::spawn(async move {
            let _ending = Ending { edge: Arc::clone(&self.edge), id: self.fill_id, fill: Arc::clone(&self.fill) };
            self.run().await;
        });
    }

    async fn run(mut self) {
        for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
            self.request.fields.remove(name);
        }
        if let Some(range) = &self.ask.range {
            self.request.fields.insert(RANGE, range.clone());
        }
        let unconditional = self.request.fields.clone();
        if let Some(part_of) = &self.ask.part_of {
            self.request.fields.extend(part_of.field());
        } else if let Some(found) = &self.validating {
            for (name, value) in cache::conditional_fields(&found.stored.meta) {
                self.request.fields.insert(name, value);
            }
        }
        match self.ask().await {
            Some(response) if self.validating.is_some() && response.status == StatusCode::NOT_MODIFIED => {
                if self.freshened(response) {
                    return;
                }
                // The origin speaks of something else than what is stored (RFC 9111 4.3.4).
                self.validating = None;
                self.request.fields = unconditional;
                if let Some(response) = self.ask().await {
                    self.store(response).await;
                }
            }
            Some(response) => self.store(response).await,
            None => {}
        }
    }

    async fn ask(&mut self) -> Option<OriginResponse> {
        let mut interim = ToClient(self.client.as_ref());
        match fetch::fetch(&self.edge, &self.pool, &self.request, &Payload::default(), &mut interim).await {
            Ok(response) => Some(response),
            Err((failure, seen)) => {
                self.failed(failure, seen);
                None
            }
        }
    }

    fn failed(&mut self, failure: Failure, seen: Seen) {
        self.edge.store.set_failing(self.fill_id, Instant::now());
        self.fill.decide(Outcome::Failed(failure));
        self.tell(seen, Own::Nothing);
    }

    /// Tells the client; the outcome has been decided.
    fn tell(&mut self, seen: Seen, own: Own) {
        if let Some(client) = self.client.take() {
            // Without a client the answer is for nobody; dropping it closes the connection.
            let _ = client.try_send(Told::Final(seen, own));
        }
    }

    fn view<'a>(&'a self, method: &'a Method) -> RequestView<'a> {
        RequestView { method, fields: &self.selecting }
    }

    /// A 304: the stored head takes what it may change. False when it is not about what is stored.
    fn freshened(&mut self, response: OriginResponse) -> bool {
        let Some(found) = &self.validating else { return false };
        let view = ResponseView { status: response.status, fields: &response.fields, complete_length: None };
        let old = &found.stored;
        match cache::freshen(&old.meta, &self.view(&Method::GET), &view, response.times, &self.policy) {
            Ok(meta) => {
                let variant = VariantKey::of(meta.vary(), &self.selecting);
                let stored = self.edge.store.freshen(old, self.place.position, meta, variant);
                self.fill.decide(Outcome::Freshened(stored));
                self.tell(response.seen.clone(), Own::Nothing);
                response.body.release(&self.edge);
                true
            }
            Err(Reason::ValidatorMismatch) => false,
            Err(reason) => {
                // The origin withdrew the permission to store: what is stored is good for this answer alone.
                self.edge.store.remove(old);
                self.metrics.refusal(reason.as_str());
                response.body.release(&self.edge);
                false
            }
        }
    }

    /// Anything but a 304: into the store if the law allows, else to the one client that asked.
    async fn store(&mut self, response: OriginResponse) {
        let now = self.edge.clock.now();
        if response.status.is_server_error() && self.covers_error(now).await {
            let failure = Failure { status: response.status, error: "http_response_incomplete" };
            self.failed(failure, response.seen.clone());
            return;
        }
        let of_ours = self.ask.range.is_some() && !self.ask.is_the_clients;
        let is_refused = matches!(response.status, StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE);
        let is_part = response.status == StatusCode::PARTIAL_CONTENT && self.ask.range.is_some();
        let judged =
            if is_part { self.storable_part(&response) } else { self.storable(&response).map(|meta| (meta, None)) };
        match judged {
            Ok((meta, span)) => self.bring(response, meta, span).await,
            // A part that the client did not ask for is no answer for it either.
            Err(reason) if of_ours && (is_part || is_refused) => {
                if self.ask.part_of.is_none() {
                    // Who comes next asks for the whole at once.
                    self.metrics.refusal(reason.as_str());
                    let until = Instant::now() + self.policy.collapse.uncacheable_for;
                    self.edge.store.set_uncollapsible(self.fill_id, until);
                }
                self.fill.decide(Outcome::Changed);
                self.tell(response.seen, Own::Nothing);
            }
            Err(reason) => {
                if let Some(found) = &self.validating
                    && !response.status.is_server_error()
                {
                    // There is something newer, and it is not for the store.
                    self.edge.store.remove(&found.stored);
                }
                self.metrics.refusal(reason.as_str());
                let until = Instant::now() + self.policy.collapse.uncacheable_for;
                self.edge.store.set_uncollapsible(self.fill_id, until);
                self.fill.decide(Outcome::Released(reason));
                self.tell(response.seen.clone(), Own::Whole(Box::new(response)));
            }
        }
    }

    /// Is there something stored that an error must not replace? Also where it was not to be validated:
    /// it lacked a part, or was not looked at.
    async fn covers_error(&self, now: SystemTime) -> bool {
        let found = match self.validating.as_ref().and_then(|found| self.edge.store.again(found)) {
            Some(found) => Some(found),
            None => self.edge.store.found(&self.place.key, &self.selecting).await,
        };
        found.is_some_and(|found| {
            let anyone = RequestDirectives::default();
            cache::may_answer_error(&found.stored.meta, &anyone, &self.policy, now, found.soft_purged)
        })
    }

    fn storable(&self, response: &OriginResponse) -> Result<Meta, Reason> {
        let view = ResponseView { status: response.status, fields: &response.fields, complete_length: response.length };
        let meta = cache::store(&self.view(&Method::GET), &view, response.times, &self.policy)?;
        self.shareable(response, meta, self.object_max())
    }

    /// Of a 206 that was asked for: the head of what it is a part of, and which part.
    fn storable_part(&self, response: &OriginResponse) -> Result<(Meta, Option<Span>), Reason> {
        let view = ResponseView { status: response.status, fields: &response.fields, complete_length: response.length };
        let request = self.view(&Method::GET);
        let (meta, span) = match &self.ask.part_of {
            Some(part_of) => {
                let meta = cache::combine(&part_of.meta, &request, &view, response.times, &self.policy)?;
                let span = Span::of(&response.fields).filter(|span| span.length == part_of.length);
                (meta, span.ok_or(Reason::ValidatorMismatch)?)
            }
            None => cache::store_part(&request, &view, response.times, &self.policy)?,
        };
        let max = self.policy.body_max(self.edge.store.object_max(), true);
        Ok((self.shareable(response, meta, max)?, Some(span)))
    }

    fn shareable(&self, response: &OriginResponse, meta: Meta, max: u64) -> Result<Meta, Reason> {
        let body = Arrival { length: response.length, until_close: response.framing == Framing::UntilClose };
        cache::shareable(&meta, &self.request.fields, &self.policy, body, max).map(|()| meta)
    }

    fn object_max(&self) -> u64 {
        self.policy.body_max(self.edge.store.object_max(), false)
    }

    /// Reads the body, to everybody at once, and publishes it when it is whole.
    async fn bring(&mut self, response: OriginResponse, meta: Meta, span: Option<Span>) {
        let variant = VariantKey::of(meta.vary(), &self.selecting);
        self.edge.store.clear_uncollapsible(self.fill_id);
        let coming = Coming { meta: meta.clone(), length: response.length, span, variant: variant.clone() };
        self.fill.decide(Outcome::Storing(Arc::new(coming)));
        self.tell(response.seen, Own::Head(response.fields));
        let mut body = response.body;
        let mut storing = true;
        let mut writing = None;
        let mut length: u64 = 0;
        loop {
            if !self.fill.room().await {
                // Too large to store, and nobody reads it any more.
                return;
            }
            match body.next().await {
                Ok(pieces) if pieces.is_empty() => break,
                Ok(pieces) => {
                    let mut follows = true;
                    for piece in pieces {
                        length += piece.len() as u64;
                        if let Some(writing) = &mut writing {
                            follows &= self.edge.store.write(writing, &self.fill, &piece);
                        }
                        self.fill.push(piece);
                    }
                    let is_stored = storing && length <= self.object_max();
                    if is_stored && writing.is_none() && length > self.edge.store.gathered_max() {
                        (writing, follows) = self.write_through(span.as_ref());
                    }
                    if storing && (!is_stored || !follows) {
                        storing = false;
                        // Nor is the rest of it written below.
                        writing = None;
                        self.fill.give_up_storing();
                        self.metrics.refusal(Reason::TooLarge.as_str());
                        let until = Instant::now() + self.policy.collapse.uncacheable_for;
                        self.edge.store.set_uncollapsible(self.fill_id, until);
                        // Nobody joins a body whose beginning will soon be gone.
                        self.edge.store.end_fill(self.fill_id, &self.fill);
                    }
                }
                Err(broken) => {
                    self.fill.finish(Err(broken));
                    return;
                }
            }
        }
        let is_whole = span.is_none_or(|span| length == span.end - span.start);
        if let Some(writing) = writing.filter(|_| storing && is_whole) {
            let store = &self.edge.store;
            self.fill.finish(Ok(()));
            store.publish_written(self.place.clone(), meta, variant, span.as_ref(), writing, &self.fill).await;
        } else if storing && let Some(chunks) = self.fill.collected() {
            match span {
                None => _ = self.edge.store.publish(self.place.clone(), meta, variant, &chunks),
                Some(span) if is_whole => {
                    self.edge.store.publish_part(self.place.clone(), meta, variant, &span, &chunks).await;
                }
                // Not the bytes that the head spoke of.
                Some(_) => {}
            }
        }
        self.fill.finish(Ok(()));
        body.release(&self.edge);
    }

    /// What has come is too large for memory: it goes to the tier below, and all that comes. Says whether that could follow.
    fn write_through(&self, span: Option<&Span>) -> (Option<Writing>, bool) {
        let Some(chunks) = self.fill.collected() else { return (None, false) };
        let store = &self.edge.store;
        let mut writing = store.write_through(&self.fill, span.map_or(0, |span| span.start));
        let follows = chunks.iter().fold(true, |follows, chunk| follows & store.write(&mut writing, &self.fill, chunk));
        (Some(writing), follows)
    }
}
