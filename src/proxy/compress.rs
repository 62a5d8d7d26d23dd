//! Compression where a policy says so: which answers have coded copies, who gets one, and the thread that makes them.
//!
//! Nobody waits for a coding. An answer is the stored bytes as they are until the copy in the coding that this client wants is
//! there; asking for it is putting a job into a bounded queue. One thread makes the copies, each once; what does not fit into the queue
//! is asked for again by the next request.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus::IntGauge;

use super::{Edge, asking::Asking, encode::encode, exchange::Exchange};
use crate::{
    cache::{Coding, Compress, Negotiated, RequestView},
    store::Stored,
};

/// Copies that wait to be made. Each holds its stored response, of which at most 64 KiB of body.
const JOBS_MAX: usize = 256;
/// A copy that saves less than a twentieth is not worth its place.
const WORTH_PERCENT: u64 = 95;

/// Makes coded copies, one after the other: the processors belong to requests. Its thread begins with the first job.
#[derive(Default)]
pub struct Compressor(OnceLock<Option<SyncSender<Job>>>);

/// A copy to be made. When it is dropped, made or not, it does not wait any more.
struct Job {
    edge: Weak<Edge>,
    stored: Arc<Stored>,
    coding: Coding,
    waiting: IntGauge,
}

impl Compressor {
    /// Asks for a copy of `stored`. Costs next to nothing where it is there, being made, or was made in vain.
    pub fn ask(&self, edge: &Arc<Edge>, stored: &Arc<Stored>, coding: Coding) {
        if stored.begin_coding(coding) {
            let waiting = edge.metrics.compress_jobs.clone();
            if !self.queue(Job::new(Arc::downgrade(edge), Arc::clone(stored), coding, waiting)) {
                count(edge, coding, "dropped");
            }
        }
    }

    /// False when too many wait: then the next request for it asks again.
    fn queue(&self, job: Job) -> bool {
        let jobs = self.0.get_or_init(begin).as_ref();
        jobs.is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

/// Begins the thread; without one nothing is compressed.
fn begin() -> Option<SyncSender<Job>> {
    let (jobs, queue) = sync_channel(JOBS_MAX);
    let thread = std::thread::Builder::new().name("compress".into()).spawn(move || work(&queue));
    match thread {
        Ok(_) => Some(jobs),
        Err(error) => {
            tracing::error!(%error, "no thread can be had: nothing is compressed");
            None
        }
    }
}

/// Runs until the edge is gone, which holds the other end.
fn work(queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        if let Some(edge) = job.edge.upgrade() {
            count(&edge, job.coding, job.run(&edge));
        }
    }
}

fn count(edge: &Edge, coding: Coding, result: &str) {
    edge.metrics.compressions.with_label_values(&[coding.name(), result]).inc();
}

impl Job {
    fn new(edge: Weak<Edge>, stored: Arc<Stored>, coding: Coding, waiting: IntGauge) -> Self {
        waiting.inc();
        Self { edge, stored, coding, waiting }
    }

    /// Makes the copy; what came of it.
    fn run(&self, edge: &Edge) -> &'static str {
        let length = self.stored.body.length();
        let Some(pieces) = edge.store.in_memory(&self.stored) else { return "evicted" };
        match catch_unwind(AssertUnwindSafe(|| encode(self.coding, &pieces, length))) {
            Ok(Ok(coded)) if is_worth(&coded, length) => {
                edge.store.put_coded(&self.stored, self.coding, &coded);
                "made"
            }
            Ok(Ok(_)) => {
                self.stored.coded_in_vain(self.coding);
                "in-vain"
            }
            failed => {
                // It would fail again.
                self.stored.coded_in_vain(self.coding);
                let error =
                    failed.map_or_else(|_| "the encoder broke".to_owned(), |result| format!("{:?}", result.err()));
                let coding = self.coding.name();
                let key = format_args!("{:032x}", self.stored.key.hash());
                tracing::error!(%error, coding, %key, "a body could not be compressed");
                "failed"
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stored.end_coding(self.coding);
        self.waiting.dec();
    }
}

fn is_worth(coded: &Bytes, length: u64) -> bool {
    coded.len() as u64 * 100 < length * WORTH_PERCENT
}

impl Exchange<'_> {
    /// Notes whether there may be coded copies of what is answered with: then `Vary` says so, whatever this client gets.
    pub(super) fn note_codings(&mut self, status: StatusCode, fields: &HeaderMap, length: Option<u64>) {
        self.trace.has_codings = self.compress().is_some_and(|compress| compress.applies(status, fields, length));
    }

    /// The coded copy of `stored` that this client gets instead of it. Where it is not there yet, it is asked for.
    pub(super) fn coded(&mut self, stored: &Arc<Stored>) -> Option<Arc<Stored>> {
        self.trace.has_codings = self.asking().has_codings(stored);
        let coding = self.wanted_coding()?;
        let copy = self.edge.store.coded(stored, coding);
        if copy.is_none() && stored.body.is_whole() {
            self.edge.compressor.ask(self.edge, stored, coding);
        }
        copy
    }

    /// This request, as the store's contents are looked at for it.
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking {
            store: &self.edge.store,
            request: RequestView { method: &self.request.method, fields: &self.request.fields },
            negotiated: self.trace.negotiated,
            compress: self.compress(),
        }
    }

    /// The coding that the answer has, where there is a copy in it.
    pub(super) fn wanted_coding(&self) -> Option<Coding> {
        match self.trace.negotiated {
            Negotiated::Coding(coding) if self.trace.has_codings => Some(coding),
            _ => None,
        }
    }

    /// What the policy says, where the cache has a part in the request.
    fn compress(&self) -> Option<&Compress> {
        if self.trace.negotiated == Negotiated::Nothing {
            return None;
        }
        self.trace.route.as_ref()?.cache.as_ref()?.compress.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, Method, header};
    use strum::IntoEnumIterator;

    use super::*;
    use crate::{
        cache::{self, Key, Policy, RequestView, ResponseView, Times, VariantKey},
        store::{Config, Memory, Place, Store},
        telemetry::Metrics,
    };

    fn stored() -> Arc<Stored> {
        let memory = Memory { size: 1024 * 1024, object_max: 1024 * 1024 };
        let store = Store::open(&Config { memory, disk: None }, 1, &Metrics::new()).expect("there is no folder");
        let (nothing, policy) =
            (HeaderMap::new(), Policy { default_ttl: Some(Duration::from_secs(60)), ..Policy::default() });
        let request = RequestView { method: &Method::GET, fields: &nothing };
        let mut fields = HeaderMap::new();
        fields.insert(header::CACHE_CONTROL, "max-age=60".parse().expect("a value"));
        let response = ResponseView { status: StatusCode::OK, fields: &fields, complete_length: None };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let meta = cache::store(&request, &response, Times { request_time: now, response_time: now }, &policy);
        let meta = meta.expect("it is storable");
        let key = Arc::new(Key::new(1, "http", "a.test", None, "/", None, &nothing, &policy));
        let variant = VariantKey::of(meta.vary(), &nothing);
        store.publish(Place { key, url: 1, position: 0, variants_max: 1 }, meta, variant, &[])
    }

    #[test]
    fn what_does_not_fit_into_the_queue_may_be_asked_for_again() {
        let (jobs, queue) = sync_channel(1);
        let compressor = Compressor(OnceLock::from(Some(jobs)));
        let (stored, waiting) = (stored(), Metrics::new().compress_jobs);
        let ask = |coding| {
            let job = || Job::new(Weak::new(), Arc::clone(&stored), coding, waiting.clone());
            stored.begin_coding(coding) && compressor.queue(job())
        };
        let [first, second] = [Coding::Brotli, Coding::Gzip];
        assert!(ask(first) && !ask(second), "one fits");
        assert_eq!(waiting.get(), 1, "what was dropped does not wait");
        assert!(!stored.begin_coding(first), "it is being made");
        // Nobody makes anything any more: what waits is given up.
        drop(queue);
        assert_eq!(waiting.get(), 0);
        assert!(Coding::iter().all(|coding| stored.begin_coding(coding)), "each may be asked for again");
    }
}
