//! Assembly and lifecycle: from a configuration to an edge that serves, and to one that has left.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, IntoRawFd},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use pingora_core::{
    listeners::ListenerConfig,
    protocols::{
        GetSocketDigest, SocketDigest, Stream,
        l4::{self, stream::L4BufferSettings},
    },
    server::{Fds, ListenFds},
    services::{Service as _, listening::Service},
};
use socket2::{Domain, Socket, Type};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

mod purging;

use crate::{
    admin::{self, PeerCommand, Readiness, SetStateError, UpstreamView},
    clock::Clock,
    config::Loaded,
    explain::{self, Ask, Scene},
    fleet::{self, Fleet, Joined, NodeCard, Standing, WhenCutOff},
    front::{App, Connections, Front, ListenAddress, TlsError},
    proxy::{
        Edge, Snapshot,
        compress::Compressor,
        ids::{self, RequestIds},
    },
    store::{self, Store},
    telemetry::{AccessLog, AccessLogError, Metrics},
    upstream::{self, Connector, ConnectorError, Pools},
};

/// Connections that wait to be accepted; the kernel cuts it to `somaxconn`.
const BACKLOG: i32 = 4_096;
/// Less than the usual scrape interval.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// Purges in a row are cleared away after in one walk over what is stored.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// How long the access log may take to write what waits when the edge stops.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// How long connections that are cut may take to end.
const CUT: Duration = Duration::from_secs(1);

/// Why an edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("listener {address}: {error}")]
    Tls { address: String, error: Box<TlsError> },
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error("another live node of the fleet has the id {id}; give each node its own node.id")]
    NodeId { id: String },
    #[error("store.disk: {0}")]
    Store(#[from] store::OpenError),
    #[error("the access log cannot be opened: {0}")]
    AccessLog(#[from] AccessLogError),
}

/// An edge that serves.
pub struct Running {
    edge: Arc<Edge>,
    readiness: Arc<Readiness>,
    connections: Arc<Connections>,
    /// What each listener is bound to, in the order of the configuration.
    addresses: Vec<Bound>,
    admin: Bound,
    /// Ends the accept loops.
    closing: watch::Sender<bool>,
    /// Ends everything else.
    stopping: watch::Sender<bool>,
    listeners: Vec<Accepting>,
    /// Stays in the fleet.
    fleet: JoinHandle<()>,
}

/// A listener that accepts.
struct Accepting {
    task: JoinHandle<()>,
    /// The same socket again: what waits in its backlog is not lost when pingora closes its own.
    socket: Socket,
    front: Arc<Front>,
}

/// Where a listener really listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Starts an edge on the current runtime: binds everything, then serves.
///
/// # Errors
/// When an address, a certificate or the access log cannot be had; nothing serves then.
pub async fn start(loaded: Loaded, clock: Clock) -> Result<Running, StartError> {
    let Loaded { config, hash, .. } = loaded;
    let metrics = Metrics::new();
    metrics
        .build_info
        .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("EDUHAM_REVISION").unwrap_or("unknown")])
        .set(1);
    metrics.config_info.with_label_values(&[&hash]).set(1);
    metrics.config_last_reload_successful.set(1);
    metrics.config_last_reload_success_timestamp.set(unix_seconds(clock.now()));
    let connector = Arc::new(Connector::new()?);
    let pools = Arc::new(Pools::new(&config.upstreams, &metrics));
    let access = AccessLog::start(&config.log.access, metrics.log_dropped.clone())?;
    let store = Store::open(&config.store, ids::random(), &metrics)?;
    let node = config.node.id.clone();
    let card = NodeCard {
        id: node.clone(),
        region: config.node.region.clone(),
        config: hash.clone(),
        when_cut_off: config.fleet.when_cut_off,
    };
    let fleet = Arc::new(Fleet::new(config.fleet.clone(), card, store.place(), &metrics, Instant::now()));
    let (server, admin_config) = (config.server.clone(), config.admin.clone());
    let snapshot = Snapshot::new(config, hash, Arc::clone(&pools), &metrics);
    let edge = Arc::new(Edge {
        snapshot: ArcSwap::from_pointee(snapshot),
        store,
        fleet,
        compressor: Compressor::default(),
        reclaim: Notify::new(),
        connector: Arc::clone(&connector),
        metrics,
        access,
        clock,
        ids: RequestIds::new(),
        draining: watch::Sender::new(false),
        lane: AtomicBool::new(true),
    });
    let readiness = Arc::new(Readiness::new());
    readiness.config_loaded();
    readiness.set_purge_log_behind(!edge.fleet.is_alone());
    let connections = Arc::new(Connections::default());
    let (closing, stopping) = (watch::Sender::new(false), watch::Sender::new(false));

    let mut addresses = Vec::new();
    let mut services = Vec::new();
    for listener in &server.listeners {
        let front = Front::new(Arc::clone(&edge), listener.clone(), Arc::clone(&connections))
            .map_err(|error| StartError::Tls { address: listener.address.to_string(), error: Box::new(error) })?;
        let (socket, bound) = bind(&listener.address, server.reuse_port)
            .map_err(|error| StartError::Listen { address: listener.address.to_string(), error })?;
        addresses.push(bound);
        services.push((listener.address.clone(), socket, Arc::new(front)));
    }
    let admin_listener = admin::bind(&admin_config.address)
        .await
        .map_err(|error| StartError::Listen { address: format!("admin {}", admin_config.address), error })?;
    let admin = match admin_listener.address() {
        Ok(ListenAddress::Tcp(address)) => Bound::Tcp(address),
        Ok(ListenAddress::Unix(path)) => Bound::Unix(path),
        Err(error) => return Err(StartError::Listen { address: admin_config.address.to_string(), error }),
    };

    // Last of what may fail: who has joined and goes without a word is missed.
    if edge.fleet.join(edge.as_ref()).await == Joined::Held {
        return Err(StartError::NodeId { id: node });
    }
    let mut listeners = Vec::new();
    for (address, socket, front) in services {
        let accepting = accept(&address, socket, front, closing.subscribe())
            .map_err(|error| StartError::Listen { address: address.to_string(), error })?;
        listeners.push(accepting);
    }
    readiness.listeners_bound();
    tokio::spawn(Arc::clone(&pools).run(connector, stopping.subscribe()));
    tokio::spawn(first_round(pools, Arc::clone(&readiness), stopping.subscribe()));
    tokio::spawn(observe(Arc::clone(&edge), stopping.subscribe()));
    tokio::spawn(reclaim(Arc::clone(&edge), stopping.subscribe()));
    let fleet =
        tokio::spawn(Arc::clone(&edge.fleet).run(Arc::clone(&edge) as Arc<dyn fleet::Sink>, stopping.subscribe()));
    tokio::spawn(follow_fleet(Arc::clone(&edge), Arc::clone(&readiness), stopping.subscribe()));
    let control = Arc::new(Control { edge: Arc::clone(&edge) });
    let parts = admin::Parts {
        metrics: Arc::new(edge.metrics.clone()),
        purge: Arc::clone(&control) as Arc<dyn admin::Purge>,
        upstreams: Arc::clone(&control) as Arc<dyn admin::Upstreams>,
        explain: control,
        readiness: Arc::clone(&readiness),
        config: admin_config,
        node,
    };
    tokio::spawn(admin::serve(admin_listener, parts, stopping.subscribe()));
    Ok(Running { edge, readiness, connections, addresses, admin, closing, stopping, listeners, fleet })
}

/// Binds one listener.
fn bind(address: &ListenAddress, reuse_port: bool) -> io::Result<(Socket, Bound)> {
    match address {
        ListenAddress::Tcp(address) => {
            let socket = listen_tcp(*address, reuse_port)?;
            let bound = socket.local_addr()?.as_socket().unwrap_or(*address);
            Ok((socket, Bound::Tcp(bound)))
        }
        ListenAddress::Unix(path) => Ok((listen_unix(path)?, Bound::Unix(path.clone()))),
    }
}

/// Hands a listener to pingora, which takes descriptors that it finds in its table.
fn accept(
    address: &ListenAddress,
    socket: Socket,
    front: Arc<Front>,
    closing: watch::Receiver<bool>,
) -> io::Result<Accepting> {
    let (name, endpoint) = match address {
        ListenAddress::Tcp(address) => (address.to_string(), ListenerConfig::tcp(address.to_string())),
        ListenAddress::Unix(path) => (path.display().to_string(), ListenerConfig::uds(path.display().to_string())),
    };
    let mut fds = Fds::new();
    fds.add(name, socket.try_clone()?.into_raw_fd());
    let mut service = Service::new(address.to_string(), App::new(Arc::clone(&front)));
    // Heads and bodies have their own buffers: a second one below would only be a copy.
    service.add_listener(endpoint.l4_buffer(L4BufferSettings::unbuffered()));
    let fds: ListenFds = Arc::new(parking_lot::Mutex::new(fds));
    let task = tokio::spawn(async move { service.start_service(Some(fds), closing, 1).await });
    Ok(Accepting { task, socket, front })
}

impl Accepting {
    /// Waits until pingora accepts no more, serves what it left waiting, and closes the listener.
    async fn close(self) {
        // A task that panicked accepts no more either.
        let _ = self.task.await;
        for _ in 0..BACKLOG {
            match self.socket.accept() {
                Ok((socket, _)) => match waiting(socket) {
                    Ok(stream) => {
                        // Counted until it has begun, as pingora's are.
                        let app = Arc::new(App::new(Arc::clone(&self.front)));
                        tokio::spawn(async move { app.serve(stream).await });
                    }
                    Err(error) => tracing::debug!(%error, "a waiting connection cannot be served"),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing waits any more, or nothing can be had any more.
                Err(_) => return,
            }
        }
    }
}

/// A connection from the backlog, as pingora would have handed it over.
fn waiting(socket: Socket) -> io::Result<Stream> {
    socket.set_nonblocking(true)?;
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    let mut stream: l4::stream::Stream = match socket.domain()? {
        Domain::UNIX => tokio::net::UnixStream::from_std(socket.into())?.into(),
        _ => {
            socket.set_tcp_nodelay(true)?;
            tokio::net::TcpStream::from_std(socket.into())?.into()
        }
    };
    stream.set_socket_digest(digest);
    Ok(Box::new(stream))
}

fn listen_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` is IPv6 alone; who wants both names both.
        socket.set_only_v6(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket file that a dead process left is replaced; one that a living process answers on is not.
fn listen_unix(path: &Path) -> io::Result<Socket> {
    let address = socket2::SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        let alive = Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(&address).is_ok();
        if error.kind() != io::ErrorKind::AddrInUse || alive {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Ready only after every peer has been looked at once.
async fn first_round(pools: Arc<Pools>, readiness: Arc<Readiness>, mut stopping: watch::Receiver<bool>) {
    let mut changes: Vec<_> = pools.iter().map(|pool| pool.changes()).collect();
    while !pools.first_round_done() {
        let any = futures::future::select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
        tokio::select! {
            _ = any => {}
            _ = stopping.changed() => return,
        }
    }
    readiness.first_health_round_done();
}

/// Keeps the store's gauges near the truth; counting them on every change would cost the hit path.
async fn observe(edge: Arc<Edge>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(OBSERVE_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => edge.store.observe(),
            _ = stopping.changed() => return,
        }
    }
}

/// Gives back what purges have taken, some time after them and for many at once.
async fn reclaim(edge: Arc<Edge>, mut stopping: watch::Receiver<bool>) {
    let all = async {
        loop {
            edge.reclaim.notified().await;
            let edge = Arc::clone(&edge);
            // What is not reclaimed is evicted some day.
            let _ = tokio::task::spawn_blocking(move || edge.store.reclaim()).await;
            tokio::time::sleep(RECLAIM_EVERY).await;
        }
    };
    tokio::select! {
        () = all => {}
        _ = stopping.wait_for(|told| *told) => {}
    }
}

/// Readiness follows how this node stands to its fleet.
async fn follow_fleet(edge: Arc<Edge>, readiness: Arc<Readiness>, mut stopping: watch::Receiver<bool>) {
    let mut standing = edge.fleet.standing();
    let stops = edge.fleet.card().when_cut_off == WhenCutOff::Stop;
    loop {
        let now = *standing.borrow_and_update();
        readiness.set_purge_log_behind(now == Standing::Joining);
        readiness.set_cut_off(stops && now == Standing::CutOff);
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            _ = stopping.wait_for(|told| *told) => return,
        }
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

impl Running {
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// What each listener is bound to, in the order of the configuration.
    pub fn addresses(&self) -> &[Bound] {
        &self.addresses
    }

    pub fn admin(&self) -> &Bound {
        &self.admin
    }

    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Leaves politely: unready and connections told to close, then the listeners closed, then whatever is left is given
    /// until the deadline. Ends early when `now` does.
    pub async fn drain(mut self, now: impl Future<Output = ()>) {
        let drain = self.edge.snapshot.load().config.server.drain.clone();
        self.readiness.set_draining(true);
        self.edge.metrics.draining.set(1);
        self.edge.draining.send_replace(true);
        let polite = async {
            // Load balancers look away during `delay`; who still comes is answered and told to close.
            tokio::time::sleep(drain.delay).await;
            self.closing.send_replace(true);
            futures::future::join_all(self.listeners.drain(..).map(Accepting::close)).await;
            let _ = tokio::time::timeout(drain.deadline, self.connections.ended()).await;
        };
        tokio::select! {
            () = polite => {}
            () = now => {}
        }
        self.stop().await;
    }

    /// Stops at once.
    pub async fn stop(self) {
        self.edge.draining.send_replace(true);
        self.closing.send_replace(true);
        for listener in self.listeners {
            let _ = listener.task.await;
        }
        // What is cut still says so in its record.
        self.connections.cut();
        let _ = tokio::time::timeout(CUT, self.connections.ended()).await;
        self.stopping.send_replace(true);
        // A beat after the goodbye would take it back.
        let _ = self.fleet.await;
        self.edge.fleet.leave().await;
        for bound in &self.addresses {
            if let Bound::Unix(path) = bound {
                // Gone already is as good.
                let _ = std::fs::remove_file(path);
            }
        }
        let edge = Arc::clone(&self.edge);
        let _ = tokio::task::spawn_blocking(move || edge.store.close()).await;
        let access = self.edge.access.clone();
        let _ = tokio::task::spawn_blocking(move || access.close(LOG_FLUSH)).await;
    }
}

/// What the control listener asks of the edge.
struct Control {
    edge: Arc<Edge>,
}

impl admin::Upstreams for Control {
    fn list(&self) -> Vec<UpstreamView> {
        let snapshot = self.edge.snapshot.load();
        snapshot
            .pools
            .iter()
            .map(|pool| UpstreamView {
                name: pool.config().name.clone(),
                usable: pool.usable(),
                peers: pool.peers().iter().map(|peer| peer_view(peer)).collect(),
            })
            .collect()
    }

    fn set_state(&self, upstream: &str, peer: &str, command: PeerCommand) -> Result<(), SetStateError> {
        let snapshot = self.edge.snapshot.load();
        let pool = snapshot.pools.get(upstream).ok_or_else(|| SetStateError::NoUpstream(upstream.to_owned()))?;
        let found = pool
            .peer(peer)
            .ok_or_else(|| SetStateError::NoPeer { upstream: upstream.to_owned(), peer: peer.to_owned() })?;
        found.set_admin_state(match command {
            PeerCommand::Drain => upstream::Admin::Drain,
            PeerCommand::Ready => upstream::Admin::Ready,
            PeerCommand::Down => upstream::Admin::Down,
        });
        Ok(())
    }
}

impl admin::Explain for Control {
    fn explain(&self, question: admin::Question) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let (edge, snapshot) = (&self.edge, self.edge.snapshot.load_full());
            let scene = Scene {
                config: &snapshot.config,
                router: &snapshot.router,
                hash: &snapshot.hash,
                object_max: edge.store.object_max(),
                seed: Some(edge.store.seed()),
            };
            let admin::Question { url, method, headers } = question;
            let ask = Ask { url, method, headers };
            let (is_trusted, is_stopped) = (edge.fleet.is_trusted(), edge.fleet.is_stopped());
            let node = explain::Node { store: &edge.store, is_trusted, is_stopped };
            let explanation = explain::live(scene, &node, &ask, edge.clock.now()).await;
            serde_json::to_value(explanation.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
        })
    }
}

fn peer_view(peer: &upstream::Peer) -> admin::PeerView {
    admin::PeerView {
        id: peer.id().to_string(),
        address: peer.address().to_owned(),
        state: match peer.state() {
            upstream::PeerState::Up => admin::PeerState::Up,
            upstream::PeerState::Down => admin::PeerState::Down,
            upstream::PeerState::Draining => admin::PeerState::Draining,
            upstream::PeerState::Unknown => admin::PeerState::Unknown,
        },
        weight: peer.weight(),
        backup: peer.backup(),
        active: peer.active() as u64,
    }
}
