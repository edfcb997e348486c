//! `ringproof serve`: start in the right order, run, drain, stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::clock::{self, CLOCK};
use super::data_dir::{DataDir, DataDirError};
use super::peers::Peers;
use super::sandbox::{self, SandboxError};
use super::sip_answer::SipShared;
use super::sip_worker::SipWorker;
use crate::api::{self, Access, key};
use crate::config::Configuration;
use crate::outbox::delivery::{Subscription, Subscriptions};
use crate::sip::transaction::key::HashKey;
use crate::store::{self, Store, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transport::TransportError;
use crate::transport::udp::{self, BoundSocket, RECEIVE_BUFFER};
use crate::verify::Verify;
use crate::verify::recent_calls::RecentCalls;
use crate::webhook::worker::Worker;
use crate::{admin, webhook};

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

/// Runs the node until it is told to stop. Prints a line for each listener, then `ready`.
///
/// # Errors
/// [`ServeError`] where it cannot start.
pub async fn serve(mut configuration: Configuration) -> Result<(), ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("the handler of SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("the handler of SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("the handler of SIGHUP"))?;

    let data_dir = DataDir::open(&configuration.data_dir)?;
    let (tag_key, pair_key) = data_dir.secret()?;
    let sandbox = sandbox::complete(&mut configuration, &data_dir).await?;

    // Every address is taken before anything runs, so that a wrong one costs nothing.
    let listeners = sip_sockets(&configuration)?;
    let sip_lines: Vec<SocketAddr> =
        listeners.iter().filter_map(|sockets| sockets.first()).map(BoundSocket::local_addr).collect();
    let api_listener = http("api", configuration.api_listen).await?;
    let admin_listener = http("admin", configuration.admin_listen).await?;

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
    let restored = verify.recover()?;
    tracing::info!(
        pending = restored.pending,
        resting = restored.resting,
        deliveries = restored.deliveries,
        "restored"
    );

    let (stop_http, http_stopped) = watch::channel(false);
    let (stop_sip, sip_stopped) = watch::channel(false);
    let (stop_rest, rest_stopped) = watch::channel(false);
    let mut rest = JoinSet::new();
    let sandbox_text =
        sandbox.welcome(&configuration, &format!("http://{}", address(&api_listener)), &sip_via(&sip_lines));
    for receiver in sandbox.receivers {
        rest.spawn(receiver.run(|event| println!("{event}"), rest_stopped.clone()));
    }
    let worker = Worker::new(
        store.clone(),
        std::mem::take(&mut configuration.webhooks),
        fresh,
        metrics.clone(),
        clock::utc,
        WEBHOOK_GRACE,
    );
    let webhooks = tokio::spawn(worker.run(rest_stopped.clone()));
    let expiring = verify.clone();
    let expiry = tokio::spawn(async move { expiring.run_expiry(rest_stopped).await });

    let shared = Arc::new(SipShared::new(
        std::mem::take(&mut configuration.trunks),
        Peers::new(&configuration.peers),
        verify.clone(),
        recent,
        HashKey::new(tag_key),
        Arc::clone(&health),
        &metrics,
    ));
    let workers = spawn_workers(&shared, listeners, &metrics, &sip_stopped).map_err(system("a SIP worker thread"))?;

    let mut lines = String::new();
    for address in &sip_lines {
        lines.push_str(&format!("listening  sip    udp://{address}\n"));
    }
    lines.push_str(&format!("listening  api    http://{}\n", address(&api_listener)));
    lines.push_str(&format!("listening  admin  http://{}\n", address(&admin_listener)));
    let access = Arc::new(ArcSwap::from_pointee(access(&configuration)));
    let api = api::router(Arc::new(verify), access, metrics.clone(), clock::instant);
    let mut servers = JoinSet::new();
    servers.spawn(api::server::serve(api_listener, api, http_stopped.clone()));
    let admin = admin::router(metrics, Arc::clone(&health), configuration.admin_token.as_ref());
    rest.spawn(api::server::serve(admin_listener, admin, stop_rest.subscribe()));
    health.set_started();
    println!("{lines}ready{sandbox_text}");

    let drain = loop {
        tokio::select! {
            _ = terminate.recv() => break configuration.sip.drain,
            _ = interrupt.recv() => break Duration::ZERO,
            _ = hangup.recv() => tracing::warn!("reload is not in this version; restart to read the configuration"),
        }
    };
    tracing::info!(seconds = drain.as_secs(), "draining");
    health.set_draining();
    tokio::select! {
        () = tokio::time::sleep(drain) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Requests end first, then calls, for both still need the store; deliveries last.
    let _ = stop_http.send(true);
    servers.join_all().await;
    let _ = stop_sip.send(true);
    join_threads(workers).await;
    let _ = stop_rest.send(true);
    let _ = expiry.await;
    let _ = webhooks.await;
    rest.join_all().await;
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    tracing::info!(clean = closed.is_ok(), "stopped");
    Ok(())
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

fn address(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

/// What `ringproof call --via` needs: an address that can be called also where the listener is on all of them.
fn sip_via(listeners: &[SocketAddr]) -> String {
    let Some(address) = listeners.first() else { return String::new() };
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    format!("udp:{ip}:{}", address.port())
}

fn subscriptions(configuration: &Configuration) -> Subscriptions {
    let subscription = |endpoint: &webhook::settings::Endpoint| Subscription {
        application: endpoint.application.clone(),
        endpoint: endpoint.id.clone(),
        events: endpoint.events.clone(),
    };
    Subscriptions(configuration.webhooks.iter().map(subscription).collect())
}

fn access(configuration: &Configuration) -> Access {
    let key = |key: &crate::config::ApiKey| api::Key {
        application: key.application,
        hash: key.hash,
        name: key::id(&key.hash),
    };
    let application =
        |one: &crate::verify::settings::Application| api::Application { name: one.name.clone(), live: one.live };
    Access {
        keys: configuration.keys.iter().map(key).collect(),
        applications: configuration.verify.applications.iter().map(application).collect(),
    }
}

/// One thread a worker, each with a runtime of its own and one socket of every listener.
fn spawn_workers(
    shared: &Arc<SipShared>,
    listeners: Vec<Vec<BoundSocket>>,
    metrics: &Metrics,
    stop: &watch::Receiver<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut by_worker: Vec<Vec<(usize, BoundSocket)>> = Vec::new();
    let mut owner = 0;
    for sockets in listeners {
        for (worker, socket) in sockets.into_iter().enumerate() {
            if by_worker.len() <= worker {
                by_worker.push(Vec::new());
            }
            by_worker[worker].push((owner, socket));
            owner += 1;
        }
    }
    let mut threads = Vec::new();
    for (number, sockets) in by_worker.into_iter().enumerate() {
        let (shared, stop, drops) = (Arc::clone(shared), stop.clone(), metrics.sip_socket_drops.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let tasks = tokio::task::LocalSet::new();
            for (owner, socket) in sockets {
                let (shared, stop, drops) = (Arc::clone(&shared), stop.clone(), drops.clone());
                tasks.spawn_local(async move {
                    match socket.register() {
                        Ok(socket) => SipWorker::new(shared, socket, owner, drops).run(stop).await,
                        Err(error) => tracing::error!(%error, "a SIP socket is not read"),
                    }
                });
            }
            runtime.block_on(tasks);
        };
        threads.push(std::thread::Builder::new().name(format!("sip-{number}")).spawn(work)?);
    }
    Ok(threads)
}

async fn join_threads(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
    if !joined.await.unwrap_or(false) {
        tracing::error!("a SIP worker ended by a panic");
    }
}
