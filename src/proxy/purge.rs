//! Purging: what an order names in this node's store, how it comes to act here and in the fleet, and the method PURGE.

use std::{sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use tokio::task::JoinError;

use super::{
    Edge,
    downstream::{ClientGone, ResponseSink},
    exchange::Exchange,
    routing::Scheme,
    synth::{Refusal, Synthetic},
    target::{BadTarget, Target},
};
use crate::{
    fleet::{Acknowledged, Issued, Order, Sink, Url},
    store::{Counted, Effort, Failure, PurgeOrder, PurgeTarget},
    telemetry::diagnostics::AUDIT,
};

/// What an order did.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: String,
    /// What was stored here of what it names, where that was counted.
    pub counted: Option<Counted>,
    pub issued: Issued,
    /// How far it has come.
    pub acknowledged: Acknowledged,
}

impl Receipt {
    /// Its place in the log.
    pub fn position(&self) -> Option<u64> {
        match &self.issued {
            Issued::Published { n, .. } => Some(*n),
            Issued::Alone | Issued::Unreachable => None,
        }
    }
}

/// A URL in the form that orders name it by; `target` as it was written.
///
/// # Errors
/// When no request could have this target.
pub fn normal_url(host: String, port: Option<u16>, target: &str) -> Result<Url, BadTarget> {
    Ok(Url { host, port, target: Target::parse(target)?.path_and_query().to_owned() })
}

/// What an order names, for the audit line: the first of each kind, and how many more.
fn what(order: &Order) -> String {
    let url = |url: &Url| format!("{}{}", url.host, url.target);
    let kinds = [
        ("url", order.urls.first().map(url), order.urls.len()),
        ("surrogate key", order.surrogate_keys.first().cloned(), order.surrogate_keys.len()),
        ("prefix", order.prefixes.first().map(url), order.prefixes.len()),
        ("host", order.hosts.first().cloned(), order.hosts.len()),
        ("all", order.all.then(String::new), 1),
    ];
    let named = kinds.into_iter().filter_map(|(kind, first, count)| {
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        Some(format!("{kind} {}{more}", first?).trim_end().to_owned())
    });
    named.collect::<Vec<_>>().join(", ")
}

impl Edge {
    /// Purges here and in the fleet for whoever holds `token`; with `wait` answers when every live node has applied it, or the time is
    /// over. Whoever asked may go away: it goes on, every step of it has a deadline, and its audit line is written.
    ///
    /// # Errors
    /// When it has panicked.
    pub async fn purge(
        self: &Arc<Self>,
        order: Order,
        wait: Option<Duration>,
        token: String,
    ) -> Result<Receipt, JoinError> {
        let edge = Arc::clone(self);
        tokio::spawn(async move { edge.purge_for(&order, wait, &token).await }).await
    }

    async fn purge_for(self: &Arc<Self>, order: &Order, wait: Option<Duration>, token: &str) -> Receipt {
        let counted = self.count(order, Effort::Quick).await;
        let id = self.fleet.next_id();
        let issued = self.fleet.issue(&id, order, self.clock.now(), self.as_ref()).await;
        self.fleet.history().count(&id, counted.map(|counted| (counted.matched, counted.bytes)));
        tracing::info!(target: AUDIT, token, action = "purge", what = what(order), soft = order.soft, id);
        let acknowledged = match (&issued, wait) {
            (Issued::Published { epoch, n }, Some(timeout)) => self.fleet.acknowledged(epoch, *n, timeout).await,
            (Issued::Unreachable, _) => Acknowledged { complete: false, ..self.fleet.acknowledged_here() },
            _ => self.fleet.acknowledged_here(),
        };
        // Acknowledged here is what a later process knows of too.
        let durable = self.store.durable().await;
        let acknowledged = Acknowledged { complete: acknowledged.complete && durable, ..acknowledged };
        Receipt { id, counted, issued, acknowledged }
    }

    /// What an order would match, as far as that is counted. Walks the store, beside the workers.
    pub async fn count(self: &Arc<Self>, order: &Order, effort: Effort) -> Option<Counted> {
        let (edge, order) = (Arc::clone(self), self.named(order));
        // Counting that breaks off has counted nothing.
        tokio::task::spawn_blocking(move || edge.store.count(&order, effort)).await.ok().flatten()
    }

    /// What a client's request made invalid (RFC 9111 4.4, RFC 9875 3): here at once, in the fleet as soon as it is told.
    /// False where that was nothing.
    pub fn invalidate(&self, urls: Vec<Url>, groups: Vec<String>) -> bool {
        let order = Order { urls, groups, by_client: true, ..Order::default() };
        if order.is_empty() {
            return false;
        }
        let now = self.clock.now();
        self.apply(&order, now);
        self.fleet.tell(order, now);
        true
    }

    /// An order as this node's store knows things: by hashes, and by what its routes make of URLs.
    fn named(&self, order: &Order) -> PurgeOrder {
        let seed = self.store.seed();
        let snapshot = self.snapshot.load();
        let mut targets = Vec::new();
        for url in &order.urls {
            let Ok(target) = Target::parse(&url.target) else {
                // It was normal when it was issued: a node of another make may see that otherwise.
                targets.push(PurgeTarget::All);
                continue;
            };
            if order.ignore_query {
                targets.extend(places(url).map(|place| PurgeTarget::path(seed, &format!("{place}{}", target.path()))));
            } else {
                let urls = snapshot.stored_urls(self, &url.host, url.port, &target);
                targets.extend(urls.into_iter().map(PurgeTarget::Url));
            }
        }
        for url in &order.prefixes {
            targets.extend(places(url).map(|place| PurgeTarget::prefix(seed, &format!("{place}{}", url.target))));
        }
        targets.extend(order.hosts.iter().map(|host| PurgeTarget::host(seed, host)));
        let keys = order.surrogate_keys.iter().chain(&order.groups);
        targets.extend(keys.map(|key| PurgeTarget::surrogate_key(seed, key)));
        if order.all {
            targets.push(PurgeTarget::All);
        }
        PurgeOrder { targets, soft: order.soft }
    }
}

/// `host:port` of a URL under either scheme, as keys write it.
fn places(url: &Url) -> impl Iterator<Item = String> {
    let place = |scheme: Scheme| match url.port.filter(|port| *port != scheme.default_port()) {
        Some(port) => format!("{}:{port}", url.host),
        None => url.host.clone(),
    };
    let (http, https) = (place(Scheme::Http), place(Scheme::Https));
    let second = (https != http).then_some(https);
    std::iter::once(http).chain(second)
}

impl Sink for Edge {
    fn apply(&self, order: &Order, at: SystemTime) {
        // Another node's clock may be ahead.
        self.store.apply(&self.named(order), at.min(self.clock.now()));
        if !order.by_client && !order.soft {
            self.reclaim.notify_one();
        }
    }

    fn forget_all(&self) {
        self.store.forget_all();
        self.reclaim.notify_one();
    }

    fn reached(&self, place: &str) {
        self.store.note_place(place);
    }

    fn made_durable(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Where it is not, a later process finds this node's place before it and reads it again.
            let _ = self.store.durable().await;
        })
    }
}

impl Exchange<'_> {
    /// The method PURGE: its URL is purged as by the control listener, with a token of the control listener.
    pub async fn purge_by_method<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), ClientGone> {
        self.trace.metrics = Some(Arc::clone(self.snapshot.router.unmatched()));
        let caller = match self.snapshot.config.admin.may_purge(&self.request.fields) {
            Ok(caller) => caller.to_owned(),
            Err(status) => return self.deliver_refusal(sink, &Refusal::PurgeNotAllowed(status)).await,
        };
        let target = self.request.target.path_and_query().to_owned();
        let url = Url { host: self.request.authority.host.to_string(), port: self.request.port(), target };
        let Ok(receipt) = self.edge.purge(Order { urls: vec![url], ..Order::default() }, None, caller).await else {
            return self.deliver_refusal(sink, &Refusal::Origin(Failure::INTERNAL)).await;
        };
        let status = match receipt.issued {
            Issued::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Issued::Alone | Issued::Published { .. } => StatusCode::OK,
        };
        let body = serde_json::json!({
            "id": receipt.id,
            "matched": receipt.counted.map(|counted| counted.matched),
            "bytes": receipt.counted.map(|counted| counted.bytes),
        });
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.deliver_synthetic(sink, Synthetic { status, fields, body: Bytes::from(body.to_string()) }, false).await
    }
}
