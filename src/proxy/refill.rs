//! A fetch for the store, in a task of its own: it streams to every reader and outlives its client.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{
    HeaderMap, Method, StatusCode,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE},
};
use tokio::sync::mpsc;

use super::{
    Edge,
    fetch::{self, INTERIM_MAX, Interim, OriginRequest, OriginResponse, Payload, Seen},
};
use crate::{
    cache::{self, LifetimeSource, Meta, Policy, Reason, RequestDirectives, RequestView, ResponseView, VariantKey},
    store::{Broken, Coming, Failure, Fill, Found, Outcome, Place, Reader},
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

/// Everything that the task needs; nothing of the client's connection.
pub struct Refill {
    pub edge: Arc<Edge>,
    pub pool: Arc<Pool>,
    pub policy: Arc<Policy>,
    pub metrics: Arc<RouteMetrics>,
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
        let unconditional = self.request.fields.clone();
        if let Some(found) = &self.validating {
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
        if response.status.is_server_error() && self.covers_error(now) {
            let failure = Failure { status: response.status, error: "http_response_incomplete" };
            self.failed(failure, response.seen.clone());
            return;
        }
        match self.storable(&response) {
            Ok(meta) => self.bring(response, meta).await,
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

    fn covers_error(&self, now: SystemTime) -> bool {
        self.validating.as_ref().is_some_and(|found| {
            let anyone = RequestDirectives::default();
            cache::may_answer_error(&found.stored.meta, &anyone, &self.policy, now, found.soft_purged)
        })
    }

    fn storable(&self, response: &OriginResponse) -> Result<Meta, Reason> {
        let view = ResponseView { status: response.status, fields: &response.fields, complete_length: response.length };
        let meta = cache::store(&self.view(&Method::GET), &view, response.times, &self.policy)?;
        if self.selecting.contains_key(http::header::COOKIE) && !is_explicit(meta.lifetime().source) {
            return Err(Reason::CookieForwarded);
        }
        if response.framing == Framing::UntilClose {
            return Err(Reason::CloseDelimited);
        }
        if response.length.is_some_and(|length| length > self.object_max()) {
            return Err(Reason::TooLarge);
        }
        Ok(meta)
    }

    fn object_max(&self) -> u64 {
        self.policy.object_max.unwrap_or(u64::MAX).min(self.edge.store.object_max())
    }

    /// Reads the body, to everybody at once, and publishes it when it is whole.
    async fn bring(&mut self, response: OriginResponse, meta: Meta) {
        let variant = VariantKey::of(meta.vary(), &self.selecting);
        self.edge.store.clear_uncollapsible(self.fill_id);
        let coming = Coming { meta: meta.clone(), length: response.length, variant: variant.clone() };
        self.fill.decide(Outcome::Storing(Arc::new(coming)));
        self.tell(response.seen, Own::Head(response.fields));
        let mut body = response.body;
        let mut storing = true;
        let mut length: u64 = 0;
        loop {
            if !self.fill.room().await {
                // Too large to store, and nobody reads it any more.
                return;
            }
            match body.next().await {
                Ok(pieces) if pieces.is_empty() => break,
                Ok(pieces) => {
                    for piece in pieces {
                        length += piece.len() as u64;
                        self.fill.push(piece);
                    }
                    if storing && length > self.object_max() {
                        storing = false;
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
        if storing && let Some(chunks) = self.fill.collected() {
            self.edge.store.publish(self.place.clone(), meta, variant, &chunks);
        }
        self.fill.finish(Ok(()));
        body.release(&self.edge);
    }
}

/// Did the origin itself say how long?
fn is_explicit(source: LifetimeSource) -> bool {
    matches!(source, LifetimeSource::SMaxage | LifetimeSource::MaxAge | LifetimeSource::Expires)
}
