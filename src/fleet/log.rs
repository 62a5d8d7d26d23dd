//! Reading the log: each entry in turn is applied, and what cannot be read in turn makes this node forget everything.

use std::time::Duration;

use super::{
    Fleet, Sink,
    cursor::{Entry, Next, Place, Raw},
    node::{Link, RETRY},
};

/// How long one read waits for something to come; also how long a reader holds on to a place that a beat has moved.
const READ_WAIT: Duration = Duration::from_secs(1);
/// What a read gets beyond its wait.
const READ_GRACE: Duration = Duration::from_secs(2);

/// What a read gives: for each stream, of which there is one, its name and entries.
type Read = Option<Vec<(String, Vec<Raw>)>>;

impl Fleet {
    pub(super) async fn keep_reading(&self, link: &Link, sink: &dyn Sink) {
        let mut applied = self.applied.subscribe();
        loop {
            let place = self.place().clone();
            if place.epoch.is_empty() {
                // The first beat gives a place.
                let _ = applied.changed().await;
                continue;
            }
            let command = link.keys.read(place.n, READ_WAIT);
            let entries = match link.log.query_within::<Read>(&command, READ_WAIT + READ_GRACE).await {
                Ok(streams) => streams.unwrap_or_default().into_iter().flat_map(|(_, entries)| entries),
                Err(error) => {
                    tracing::debug!(%error, "the purge log cannot be read");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let mut any = false;
            for entry in entries.filter_map(Entry::parse) {
                any = true;
                if self.take(&entry, sink) == Next::Gap {
                    // If the log has another past, the beat forgets everything; if an entry was taken out of it, nobody else will.
                    if !self.has_moved(link, sink, &place).await {
                        self.skip_gap(&entry, sink);
                    }
                    break;
                }
            }
            if any {
                self.beat_now.notify_one();
            }
        }
    }

    /// Beats, and says whether this node's place is another one afterwards.
    async fn has_moved(&self, link: &Link, sink: &dyn Sink, place: &Place) -> bool {
        while self.beat(link, sink, "").await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        self.place().epoch != place.epoch || self.place().n != place.n
    }

    /// Something before `entry` is missing for good: whatever it was, it has been applied when everything is forgotten.
    fn skip_gap(&self, entry: &Entry, sink: &dyn Sink) {
        tracing::warn!(n = entry.n, "entries are missing from the purge log; everything stored counts as purged");
        let mut place = self.place();
        if entry.n > place.n {
            sink.forget_all();
            place.advance(entry);
            place.tell(sink);
        }
        drop(place);
        self.applied.send_replace(());
    }

    /// Applies an entry if it is the next one.
    pub(super) fn take(&self, entry: &Entry, sink: &dyn Sink) -> Next {
        let mut place = self.place();
        let next = place.next(entry);
        if next == Next::Follows {
            if !entry.order.is_empty() {
                sink.apply(&entry.order, entry.at);
            }
            place.advance(entry);
            place.tell(sink);
            drop(place);
            // An own one is counted where it is issued: it may act long before it has a place.
            if entry.node != self.card.id {
                self.count(&entry.order);
            }
            self.note(&entry.id, &entry.node, entry.at, &entry.order, Some(entry.n));
            self.applied.send_replace(());
        }
        next
    }
}
