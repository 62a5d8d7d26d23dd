//! The way of a request: one [`Exchange`](exchange::Exchange) walks the steps, one file each.
//!
//! 1. [`receive`]: is it a request that we take? What is asked, by whom?
//! 2. [`route`]: which route.
//! 3. [`lookup`]: key, stored response, may it be used? [`asking`]: what is missing? [`collapse`]: who fetches it, and who waits for
//!    that?
//! 4. [`fetch`]: one exchange with an origin, with retries. [`refill`] runs it for the store, [`pass`] for one client.
//! 5. [`deliver`]: the answer, from whatever there is; [`partial`] puts one together, [`compress`] has some coded.
//! 6. [`purge`]: what takes stored responses away, from operators, clients and other nodes.
//! 7. [`synth`]: every answer we make ourselves. [`log`]: one record and one count per request.
//!
//! Steps hold no policy: what may be stored or reused is said by [`crate::cache`], where to go by
//! [`crate::upstream`].

pub mod asking;
pub mod collapse;
pub mod compress;
pub mod decision;
pub mod deliver;
pub mod downstream;
pub mod encode;
pub mod exchange;
pub mod fetch;
pub mod fields;
pub mod ids;
pub mod lane;
pub mod log;
pub mod lookup;
pub mod partial;
pub mod pass;
pub mod purge;
pub mod receive;
pub mod refill;
pub mod route;
pub mod routing;
pub mod sticky;
pub mod synth;
pub mod target;
pub mod unkeyed;
pub mod websocket;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use tokio::sync::{Notify, watch};

use self::{compress::Compressor, routing::Scheme};
use crate::{
    cache::{Key, url_hash},
    clock::Clock,
    config::Config,
    fleet::Fleet,
    store::Store,
    telemetry::{AccessLog, Metrics},
    upstream::{Connector, Pools},
};

/// What every exchange of one edge shares.
pub struct Edge {
    /// What the configuration says now; an exchange keeps the one it began with.
    pub snapshot: ArcSwap<Snapshot>,
    pub store: Store,
    pub fleet: Arc<Fleet>,
    pub compressor: Compressor,
    /// Told when purges have left something to clear away.
    pub reclaim: Notify,
    pub connector: Arc<Connector>,
    pub metrics: Metrics,
    pub access: AccessLog,
    pub clock: Clock,
    pub ids: ids::RequestIds,
    /// True once the edge is leaving: connections are told so at their next answer.
    pub draining: watch::Sender<bool>,
    /// Plain hits take the lane. Only what compares it with the long way turns it off.
    pub lane: AtomicBool,
}

impl Edge {
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) fn has_lane(&self) -> bool {
        self.lane.load(Ordering::Relaxed)
    }
}

/// One configuration, made ready for requests.
pub struct Snapshot {
    pub config: Config,
    pub router: route::Router,
    pub pools: Arc<Pools>,
    /// Names the configuration in records and metrics.
    pub hash: String,
}

impl Snapshot {
    /// Makes a configuration ready: routes with their metrics, and its pools.
    pub fn new(config: Config, hash: String, pools: Arc<Pools>, metrics: &Metrics) -> Self {
        let router = route::Router::new(&config.routing, |label| metrics.route(label));
        Self { config, router, pools, hash }
    }

    /// What purging or invalidating a URL must name: its hash under the policy of the route that a GET of it takes, for
    /// both schemes. Always at least one.
    pub fn stored_urls(&self, edge: &Edge, host: &str, port: Option<u16>, target: &target::Target) -> Vec<u128> {
        let fields = HeaderMap::new();
        let mut urls = Vec::new();
        for scheme in [Scheme::Http, Scheme::Https] {
            let asked = route::Asked {
                method: &Method::GET,
                scheme,
                host: Some(host),
                path: target.path(),
                query: target.query(),
                fields: &fields,
                client_ip: None,
                listener: "",
            };
            let policy = self.router.choose(&asked).and_then(|choice| choice.route.cache.as_ref());
            let port = port.filter(|port| *port != scheme.default_port());
            let seed = edge.store.seed();
            let url = match policy {
                Some(policy) => {
                    let path = target.path();
                    Key::new(seed, scheme.as_str(), host, port, path, target.query(), &fields, policy).url_hash(seed)
                }
                None => url_hash(seed, host, port, target.path(), target.query()),
            };
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }
}
