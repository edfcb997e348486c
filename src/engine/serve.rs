//! `ringproof serve`: start in the right order, run, drain, stop.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ceilings;
use super::clock::{self, CLOCK};
use super::data_dir::{DATABASE, DataDir, DataDirError};
use super::gauges;
use super::listening::{SipSockets, Told, say};
use super::operator;
use super::peers::Peers;
use super::reload::{self, Reload};
use super::sandbox::{self, Receivers, SandboxError};
use super::signals::{Signals, Wish};
use super::sip_answer::SipShared;
use super::supervisor::Supervisor;
use super::webhooks::{Webhooks, subscriptions};
use super::{audit_log, certificate, control, sip_listener, test_calls, threads, watchdog};
use crate::admin;
use crate::api::server::{Bounds, Counts};
use crate::api::tls::Tls;
use crate::api::{self, Access};
use crate::config::Configuration;
use crate::matcher::boot_time::BootTime;
use crate::sip::transaction::key::HashKey;
use crate::store::{self, Store, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transport::TransportError;
use crate::transport::tcp;
use crate::verify::recent_calls::RecentCalls;
use crate::verify::settings::{Application, ApplicationId};
use crate::verify::{Restored, Verify};

/// New deliveries on their way from the writer to the webhook worker; what does not fit is polled from the store.
const READY_DELIVERIES: usize = 16_384;

/// How long the node has to settle what is under way after the drain: requests, calls and deliveries have 5 s each, and
/// what the store has taken goes to disk.
const STOP: Duration = Duration::from_secs(25);

/// Why the node does not start, or does not end well. The operator must act.
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
    /// It was told to stop and something holds it: a disk that does not answer, mostly.
    #[error(
        "not everything was settled {seconds} s after the drain, so this ends without it: what was answered is on disk, what was not comes again"
    )]
    NotSettled {
        /// How long that was waited for.
        seconds: u64,
    },
    /// The disk does not tell whether the last commit took effect, or something ended by a panic.
    #[error(
        "the database does not tell what became of the last commit: what was answered is on disk, what was not comes again; look at its disk"
    )]
    Unknown,
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

/// Runs the node until it is told to stop. Prints a line for each listener, then `ready`. `file` is where
/// `configuration` was read and is read again at a SIGHUP.
///
/// # Errors
/// [`ServeError`] where it cannot start, or did not end in time.
pub async fn serve(file: &Path, configuration: Configuration, mut signals: Signals) -> Result<(), ServeError> {
    let supervisor = Arc::new(Supervisor::from_env());
    let (node, mut reload) = Node::start(file, configuration, Arc::clone(&supervisor)).await?;
    supervisor.ready("ready");
    let drain = match until_stop(&mut signals, &mut reload, &supervisor).await {
        Wish::Drain => reload.drain(),
        Wish::Stop | Wish::Reload => Duration::ZERO,
    };
    tracing::info!(seconds = drain.as_secs(), "draining");
    node.health.set_draining(clock::boot().plus(drain).since(BootTime::default()));
    supervisor.stopping(drain + STOP);
    signals.wait(drain).await;
    // As a task of its own: what is given up at the deadline must not be waited for once more when it is dropped.
    let stopping = tokio::spawn(node.stop());
    tokio::select! {
        stopped = timeout(STOP, stopping) => match stopped {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(ServeError::Unknown),
            Err(_) => Err(ServeError::NotSettled { seconds: STOP.as_secs() }),
        },
        () = signals.again() => {
            tracing::warn!("stopped at once; what was not answered comes again, what was is on disk");
            Ok(())
        }
    }
}

/// Reloads as often as is wished, each after the one before, until the node is to stop.
async fn until_stop(signals: &mut Signals, reload: &mut Reload, supervisor: &Supervisor) -> Wish {
    let mut wish = signals.next().await;
    while wish == Wish::Reload {
        supervisor.reloading(clock::monotonic());
        let mut next = None;
        let is_in_force = {
            let reloading = reload.run();
            tokio::pin!(reloading);
            loop {
                tokio::select! {
                    biased;
                    is_in_force = &mut reloading => break is_in_force,
                    wish = signals.next() => match wish {
                        // It may have been meant for a file that was written after this reading.
                        Wish::Reload => next = Some(wish),
                        // Nothing is in force yet of what is being read.
                        Wish::Drain | Wish::Stop => return wish,
                    },
                }
            }
        };
        supervisor.ready(if is_in_force { "ready" } else { "ready; the file was refused, the one before is in force" });
        wish = match next {
            Some(wish) => wish,
            None => signals.next().await,
        };
    }
    wish
}

/// A node that runs.
struct Node {
    health: Arc<Health>,
    store: Store,
    verify: Verify,
    requests: Part,
    calls: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    streams: JoinSet<()>,
    rest: Part,
    _data_dir: Arc<DataDir>,
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
    #[expect(clippy::too_many_lines, reason = "one order, told in one place")]
    async fn start(
        file: &Path,
        mut configuration: Configuration,
        supervisor: Arc<Supervisor>,
    ) -> Result<(Self, Reload), ServeError> {
        let data_dir = Arc::new(DataDir::open(&configuration.data_dir)?);
        data_dir.require_whole()?;
        let keys = data_dir.keys()?;
        let mut sandbox = sandbox::complete(&mut configuration, &data_dir, &HashMap::new()).await?;

        let caps = ceilings::settle(&configuration);

        // Every address is taken before anything runs, so that a wrong one costs nothing.
        let sockets = SipSockets::open(&configuration)?;
        let api = http("api", configuration.api_listen).await?;
        let admin = http("admin", configuration.admin_listen).await?;
        let secure = configuration.api.tls.is_some();
        let told = Told { sip: sockets.bound, api: local(&api), secure, admin: local(&admin) };
        let welcome = sandbox.welcome(&configuration, &told.api_url(), &told.sip_via());

        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let (ready, fresh) = mpsc::channel(READY_DELIVERIES);
        let settings = store::Settings { path: data_dir.file(DATABASE), retention: configuration.retention };
        let store = Store::open(
            &settings,
            subscriptions(&configuration.webhooks),
            metrics.clone(),
            Arc::clone(&health),
            ready,
        )?;
        let recent = Arc::new(RecentCalls::new(configuration.sip.recent_calls));
        let verify = Verify::new(
            configuration.verify.clone(),
            keys.pairs,
            CLOCK,
            store.clone(),
            Arc::clone(&recent),
            operator::signing(&data_dir, &configuration)?,
            metrics.clone(),
            Arc::clone(&health),
        );
        let Restored { pending, resting, deliveries } = verify.recover()?;
        tracing::info!(pending, resting, deliveries, "restored");

        let mut rest = Part::new();
        let mut receivers = Receivers::default();
        receivers.run(&mut sandbox);
        let endpoints = std::mem::take(&mut configuration.webhooks);
        let webhook_count = endpoints.len();
        let subscribed = endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let (webhooks, worker) = Webhooks::new(store.clone(), endpoints, fresh, metrics.clone());
        rest.spawn(|stop| worker.run(stop));
        let expiring = verify.clone();
        rest.spawn(|stop| async move { expiring.run_expiry(stop).await });
        let retiring = verify.clone();
        rest.spawn(|stop| async move { retiring.run_retirement(stop).await });
        audit_log::begin(&verify, file, &configuration, webhook_count);
        let audited = verify.clone();
        rest.spawn(|stop| audit_log::keep(audited, stop));
        let (controlled, controlling) = (Arc::clone(&data_dir), verify.clone());
        rest.spawn(|stop| control::serve(controlled, controlling, stop));
        let watched = Arc::clone(&health);
        rest.spawn(|stop| watchdog::run(supervisor, watched, stop));
        let admin_token = Arc::new(admin::Token::new(configuration.admin_token.as_ref()));
        let router = admin::router(metrics.clone(), Arc::clone(&health), Arc::clone(&admin_token));
        let bounds = Bounds { connections: ceilings::ADMIN, ..Bounds::default() };
        rest.spawn(|stop| api::server::serve(admin, router, stop, bounds, Counts::untold()));
        rest.spawn(|stop| gauges::keep(store.clone(), settings.path, metrics.clone(), stop));

        let shared = Arc::new(SipShared::new(
            configuration.trunks.clone(),
            Peers::new(&configuration.peers),
            verify.clone(),
            recent,
            HashKey::new(keys.tags),
            Arc::clone(&health),
            &metrics,
        ));
        let calls = watch::channel(false).0;
        let workers = threads::spawn(&shared, sockets.udp, &metrics, &health, &calls.subscribe())
            .map_err(|source| ServeError::System { what: "a SIP worker thread", source })?;
        let of_each = (caps.sip / sockets.tcp.len().max(1)).max(1);
        let tcp = tcp::Settings { connections: of_each, ..configuration.sip.tcp };
        let descriptors = Arc::new(Semaphore::new(caps.all));
        let places = (tcp, Arc::clone(&descriptors));
        let streams = sip_listener::spawn(&shared, sockets.tcp, places, &metrics, &health, &calls.subscribe())?;
        let (calling, scripts) = (Arc::clone(&shared), verify.clone());
        rest.spawn(|stop| test_calls::run_scripts(calling, scripts, stop));
        let mut requests = Part::new();
        let access = Arc::new(ArcSwap::from_pointee(access(&configuration)));
        let tls = configuration.api.tls.as_ref().map(|files| Tls::new(&files.identity));
        if let Some(tls) = tls.clone() {
            let warning = verify.clone();
            rest.spawn(|stop| certificate::watch(warning, tls, stop));
        }
        let bounds = api_bounds(&configuration.api, (caps.api, descriptors), &access, tls.clone());
        metrics.api_connections_limit.set(i64::try_from(caps.api).unwrap_or(i64::MAX));
        let counts = Counts::of_api(&metrics);
        let router = api::router(
            Arc::new(verify.clone()),
            Arc::clone(&access),
            metrics.clone(),
            clock::REQUESTS,
            (test_calls::placing(Arc::clone(&shared)), webhooks.sending_tests()),
            keys.client,
            requests.stop.subscribe(),
        );
        requests.spawn(|stop| api::server::serve(api, router, stop, bounds, counts));

        health.set_started();
        reload::note_reading(&metrics, true);
        say(&format_args!("{told}ready\n{welcome}"));
        let controlled_by = verify.clone();
        let reload = Reload {
            file: file.to_owned(),
            running: Arc::new(configuration),
            data_dir: Arc::clone(&data_dir),
            verify,
            shared,
            access,
            tls,
            admin_token,
            store: store.clone(),
            receivers,
            metrics,
            told,
            filters: sockets.filters,
            endpoints: subscribed,
            webhooks,
        };
        let node =
            Self { health, store, verify: controlled_by, requests, calls, workers, streams, rest, _data_dir: data_dir };
        Ok((node, reload))
    }

    /// Requests end first, then calls, for both still need the store; then deliveries, and the store last. Whether all is
    /// known to be as it was answered.
    async fn stop(self) -> bool {
        self.requests.stop().await;
        let _ = self.calls.send(true);
        tokio::join!(threads::join(self.workers), self.streams.join_all());
        self.rest.stop().await;
        audit_log::end(&self.verify).await;
        let store = self.store;
        let clean = tokio::task::spawn_blocking(move || store.close()).await.unwrap_or(false);
        tracing::info!(clean, "stopped");
        clean
    }
}

async fn http(name: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Http { name, address, source })
}

/// The bound address; an open socket has one.
fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into())
}

fn api_bounds(
    settings: &api::settings::Settings,
    (connections, descriptors): (usize, Arc<Semaphore>),
    access: &Arc<ArcSwap<Access>>,
    tls: Option<Tls>,
) -> Bounds {
    Bounds {
        connections,
        descriptors: Some(descriptors),
        connections_per_address: settings.connections_per_address,
        access: Some(Arc::clone(access)),
        tls,
        ..Bounds::default()
    }
}

pub fn access(configuration: &Configuration) -> Access {
    let application = |(place, one): (u16, &Application)| {
        let origins = configuration.origins.iter().filter(|origin| origin.application == ApplicationId(place));
        let allowed_origins = origins.map(|origin| origin.text.clone()).collect();
        api::Application { name: one.name.clone(), live: one.live, allowed_origins }
    };
    Access {
        keys: configuration.keys.clone(),
        applications: (0..).zip(&configuration.verify.applications).map(application).collect(),
        trusted_proxies: configuration.api.trusted_proxies.clone(),
        public_url: configuration.api.public_url.clone(),
    }
}
