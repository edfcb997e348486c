//! `ringproof serve`: start in the right order, run, drain, stop.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::ceilings;
use super::clock::{self, CLOCK};
use super::data_dir::{DataDir, DataDirError};
use super::gauges;
use super::peers::Peers;
use super::sandbox::{self, SandboxError};
use super::signals::Signals;
use super::sip_answer::SipShared;
use super::{test_calls, threads};
use crate::admin;
use crate::api::server::{Bounds, Counts};
use crate::api::{self, Access, key};
use crate::config::{ApiKey, Configuration};
use crate::outbox::delivery::{Subscription, Subscriptions};
use crate::sip::transaction::key::HashKey;
use crate::store::{self, Store, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transport::TransportError;
use crate::transport::udp::{self, BoundSocket, RECEIVE_BUFFER};
use crate::verify::recent_calls::RecentCalls;
use crate::verify::settings::Application;
use crate::verify::{Restored, Verify};
use crate::webhook::settings::Endpoint;
use crate::webhook::worker::Worker;

/// New deliveries on their way from the writer to the webhook worker; what does not fit is polled from the store.
const READY_DELIVERIES: usize = 16_384;

/// How long webhook attempts in flight may take when the node stops.
const WEBHOOK_GRACE: Duration = Duration::from_secs(5);

/// Why the node does not start. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A SIP listener.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What sandbox applications lack.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// An HTTP listener.
    #[error("cannot listen on http://{address} for the {name}: {source}")]
    Http {
        /// `api` or `admin`.
        name: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Threads or signals.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl ServeError {
    /// Whether it is the operator's command that is wrong, not the machine: a data directory that is in use.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        matches!(self, Self::DataDir(DataDirError::InUse(_)))
    }
}

/// Runs the node until it is told to stop. Prints a line for each listener, then `ready`.
///
/// # Errors
/// [`ServeError`] where it cannot start.
pub async fn serve(configuration: Configuration) -> Result<(), ServeError> {
    let drain = configuration.sip.drain;
    let mut signals = Signals::new().map_err(|source| ServeError::System { what: "a signal handler", source })?;
    let node = Node::start(configuration).await?;
    let drain = signals.stop(drain).await;
    tracing::info!(seconds = drain.as_secs(), "draining");
    node.health.set_draining();
    signals.wait(drain).await;
    tokio::select! {
        () = node.stop() => {}
        _ = signals.stop(Duration::ZERO) => tracing::warn!("stopped at once; what was not answered comes again, what was is on disk"),
    }
    Ok(())
}

/// A node that runs.
struct Node {
    health: Arc<Health>,
    store: Store,
    requests: Part,
    calls: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    rest: Part,
    _data_dir: DataDir,
}

/// Tasks that stop together.
struct Part {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Part {
    fn new() -> Self {
        Self { stop: watch::channel(false).0, tasks: JoinSet::new() }
    }

    /// Starts a task that ends when the receiver it is given turns true.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(watch::Receiver<bool>) -> F) {
        self.tasks.spawn(task(self.stop.subscribe()));
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        self.tasks.join_all().await;
    }
}

impl Node {
    async fn start(mut configuration: Configuration) -> Result<Self, ServeError> {
        let data_dir = DataDir::open(&configuration.data_dir)?;
        let (tag_key, pair_key) = data_dir.secret()?;
        let sandbox = sandbox::complete(&mut configuration, &data_dir).await?;

        let caps = ceilings::settle(&configuration);

        // Every address is taken before anything runs, so that a wrong one costs nothing.
        let listeners = sip_sockets(&configuration)?;
        let sip = listeners.iter().filter_map(|sockets| sockets.first()).map(BoundSocket::local_addr).collect();
        let api = http("api", configuration.api_listen).await?;
        let admin = http("admin", configuration.admin_listen).await?;
        let told = Told { sip, api: local(&api), admin: local(&admin) };
        let welcome = sandbox.welcome(&configuration, &told.api_url(), &told.sip_via());

        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let (ready, fresh) = mpsc::channel(READY_DELIVERIES);
        let settings = store::Settings { path: data_dir.file("ringproof.db"), retention: configuration.retention };
        let store = Store::open(&settings, subscriptions(&configuration), metrics.clone(), Arc::clone(&health), ready)?;
        let recent = Arc::new(RecentCalls::new(configuration.sip.recent_calls));
        let verify = Verify::new(
            configuration.verify.clone(),
            pair_key,
            CLOCK,
            store.clone(),
            Arc::clone(&recent),
            metrics.clone(),
            Arc::clone(&health),
        );
        let Restored { pending, resting, deliveries } = verify.recover()?;
        tracing::info!(pending, resting, deliveries, "restored");

        let mut rest = Part::new();
        for receiver in sandbox.receivers {
            rest.spawn(|stop| receiver.run(|event| say(event), stop));
        }
        let endpoints = std::mem::take(&mut configuration.webhooks);
        let worker = Worker::new(store.clone(), endpoints, fresh, metrics.clone(), clock::utc, WEBHOOK_GRACE);
        rest.spawn(|stop| worker.run(stop));
        let expiring = verify.clone();
        rest.spawn(|stop| async move { expiring.run_expiry(stop).await });
        let router = admin::router(metrics.clone(), Arc::clone(&health), configuration.admin_token.as_ref());
        let bounds = Bounds { connections: ceilings::ADMIN, ..Bounds::default() };
        rest.spawn(|stop| api::server::serve(admin, router, stop, bounds, Counts::untold()));
        rest.spawn(|stop| gauges::keep(store.clone(), settings.path, metrics.clone(), stop));

        let shared = Arc::new(SipShared::new(
            std::mem::take(&mut configuration.trunks),
            Peers::new(&configuration.peers),
            verify.clone(),
            recent,
            HashKey::new(tag_key),
            Arc::clone(&health),
            &metrics,
        ));
        let calls = watch::channel(false).0;
        let workers = threads::spawn(&shared, listeners, &metrics, &health, &calls.subscribe())
            .map_err(|source| ServeError::System { what: "a SIP worker thread", source })?;
        let (placing, scripts) = (Arc::clone(&shared), verify.clone());
        rest.spawn(|stop| test_calls::run_scripts(shared, scripts, stop));
        let mut requests = Part::new();
        let access = Arc::new(ArcSwap::from_pointee(access(&configuration)));
        let bounds = Bounds { connections: caps.api, ..Bounds::default() };
        metrics.api_connections_limit.set(i64::try_from(caps.api).unwrap_or(i64::MAX));
        let counts = Counts::of_api(&metrics);
        let router = api::router(Arc::new(verify), access, metrics, clock::instant, test_calls::placing(placing));
        requests.spawn(|stop| api::server::serve(api, router, stop, bounds, counts));

        health.set_started();
        say(&format_args!("{told}ready\n{welcome}"));
        Ok(Self { health, store, requests, calls, workers, rest, _data_dir: data_dir })
    }

    /// Requests end first, then calls, for both still need the store; then deliveries, and the store last.
    async fn stop(self) {
        self.requests.stop().await;
        let _ = self.calls.send(true);
        threads::join(self.workers).await;
        self.rest.stop().await;
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        tracing::info!(clean = closed.is_ok(), "stopped");
    }
}

/// What is told of the listeners.
struct Told {
    sip: Vec<SocketAddr>,
    api: SocketAddr,
    admin: SocketAddr,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for address in &self.sip {
            writeln!(f, "listening  sip    udp://{address}")?;
        }
        writeln!(f, "listening  api    http://{}", self.api)?;
        writeln!(f, "listening  admin  http://{}", self.admin)
    }
}

impl Told {
    fn api_url(&self) -> String {
        format!("http://{}", reachable(self.api))
    }

    /// What `ringproof call --via` takes.
    fn sip_via(&self) -> String {
        self.sip.first().map(|address| format!("udp:{}", reachable(*address))).unwrap_or_default()
    }
}

/// Tells the one who started the node. That nobody listens any more is no reason to fail.
fn say(text: &dyn fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// An address of this machine that can be called also where the listener is on all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn sip_sockets(configuration: &Configuration) -> Result<Vec<Vec<BoundSocket>>, TransportError> {
    let mut listeners = Vec::new();
    for listen in &configuration.sip.listen {
        let sockets = udp::open(*listen, configuration.sip.workers)?;
        if let Some(got) = sockets.first().map(BoundSocket::receive_buffer).filter(|got| *got < RECEIVE_BUFFER) {
            tracing::warn!(
                listener = %listen, asked = RECEIVE_BUFFER, got,
                "the kernel gives a smaller receive buffer; raise net.core.rmem_max to hold bursts of calls"
            );
        }
        listeners.push(sockets);
    }
    Ok(listeners)
}

async fn http(name: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Http { name, address, source })
}

/// The bound address; an open socket has one.
fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into())
}

fn subscriptions(configuration: &Configuration) -> Subscriptions {
    let subscription = |endpoint: &Endpoint| Subscription {
        application: endpoint.application.clone(),
        endpoint: endpoint.id.clone(),
        events: endpoint.events.clone(),
    };
    Subscriptions(configuration.webhooks.iter().map(subscription).collect())
}

fn access(configuration: &Configuration) -> Access {
    let key = |key: &ApiKey| api::Key { application: key.application, hash: key.hash, name: key::id(&key.hash) };
    let application = |one: &Application| api::Application { name: one.name.clone(), live: one.live };
    Access {
        keys: configuration.keys.iter().map(key).collect(),
        applications: configuration.verify.applications.iter().map(application).collect(),
    }
}
