//! Publishing: an order gets its place in the log, now or when the log can be reached again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    Fleet, Issued, Order, Sink,
    cursor::{Entry, Next},
    node::{Link, RETRY, chance},
    pending::Waiting,
    script::Publication,
};
use crate::redis::Error;

/// How long the issuer of a published purge waits for the reader to bring what lies before it.
const OWN_WAIT: Duration = Duration::from_secs(2);

/// How long a node that leaves tries to publish what waits: longer than Redis is left alone after failures.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// The place that an order was given.
struct Published {
    epoch: String,
    n: u64,
    /// The id of the entry before it.
    prev: String,
}

impl Fleet {
    /// A name for a purge.
    pub fn next_id(&self) -> String {
        chance()
    }

    /// Issues an order: when this returns it acts here, under its place in the log if that can be reached.
    pub async fn issue(&self, id: &str, order: &Order, at: SystemTime, sink: &dyn Sink) -> Issued {
        let issued = self.issue_uncounted(id, order, at, sink).await;
        self.count(order);
        issued
    }

    async fn issue_uncounted(&self, id: &str, order: &Order, at: SystemTime, sink: &dyn Sink) -> Issued {
        let Some(link) = &self.link else {
            sink.apply(order, at);
            self.note(id, &self.card.id, at, order, None);
            return Issued::Alone;
        };
        match self.publish(link, id, order, at).await {
            Ok(published) => {
                let (epoch, n) = self.apply_own(id, order, at, published, sink).await;
                Issued::Published { epoch, n }
            }
            Err(error) => {
                tracing::warn!(%error, id, "a purge is not published yet; it acts on this node alone");
                sink.apply(order, at);
                self.note(id, &self.card.id, at, order, None);
                self.pending.push(Waiting { id: id.to_owned(), order: order.clone(), at });
                Issued::Unreachable
            }
        }
    }

    /// An order that acts here already is told to the others when that is possible.
    pub fn tell(&self, order: Order, at: SystemTime) {
        self.count(&order);
        if self.link.is_some() {
            self.pending.push(Waiting { id: chance(), order, at });
        }
    }

    /// An order is counted once, however often it is applied.
    pub(super) fn count(&self, order: &Order) {
        for (kind, count) in order.kinds() {
            self.metrics.purges.with_label_values(&[kind]).inc_by(count as u64);
        }
    }

    async fn publish(&self, link: &Link, id: &str, order: &Order, at: SystemTime) -> Result<Published, Error> {
        // Texts and flags always serialise.
        let order = serde_json::to_string(order).unwrap_or_default();
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fresh = chance();
        let command = link.keys.publish(&Publication {
            fresh: &fresh,
            id,
            node: &self.card.id,
            at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            order: &order,
            history: self.config.history,
        });
        let reply: Vec<String> = link.commands.query(&command).await?;
        let published = match <[String; 3]>::try_from(reply) {
            Ok([epoch, n, prev]) => n.parse().ok().map(|n| Published { epoch, n, prev }),
            Err(_) => None,
        };
        published.ok_or(Error::Nonsense)
    }

    /// Applies an own entry at once if it is the next, else when the reader has brought what lies before it.
    async fn apply_own(
        &self,
        id: &str,
        order: &Order,
        at: SystemTime,
        Published { epoch, n, prev }: Published,
        sink: &dyn Sink,
    ) -> (String, u64) {
        let entry = Entry { n, id: id.to_owned(), prev, node: self.card.id.clone(), at, order: order.clone() };
        let mut applied = self.applied.subscribe();
        let is_here = self.place().epoch == epoch && self.take(&entry, sink) != Next::Gap;
        self.beat_now.notify_one();
        if !is_here {
            let wait = applied.wait_for(|()| {
                let place = self.place();
                place.epoch == epoch && place.n >= n
            });
            if !matches!(tokio::time::timeout(OWN_WAIT, wait).await, Ok(Ok(_))) {
                // It comes again with its place.
                sink.apply(order, at);
            }
        }
        // Where the place has jumped over it nobody else has written it down.
        self.note(id, &self.card.id, at, order, Some(n));
        (epoch, n)
    }

    pub(super) async fn keep_publishing(&self, link: &Link, sink: &dyn Sink) {
        loop {
            let mut taken = self.pending.next().await;
            let Waiting { id, order, at } = &taken.waiting;
            match self.publish(link, id, order, *at).await {
                Ok(published) => {
                    taken.told = true;
                    let Waiting { id, order, at } = &taken.waiting;
                    self.apply_own(id, order, *at, published, sink).await;
                }
                Err(_) => {
                    drop(taken);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Publishes what waits before this node leaves: nothing keeps it for the next start.
    pub(super) async fn publish_the_last(&self, link: &Link) {
        let all = async {
            while let Some(mut taken) = self.pending.take() {
                let Waiting { id, order, at } = &taken.waiting;
                match self.publish(link, id, order, *at).await {
                    Ok(_) => taken.told = true,
                    Err(_) => {
                        drop(taken);
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        };
        // What is left is counted.
        let _ = tokio::time::timeout(LAST_TIMEOUT, all).await;
        let left = self.pending.len();
        if left > 0 {
            tracing::warn!(left, "purges that other nodes were not told of are lost with this process; purge again");
        }
    }
}
