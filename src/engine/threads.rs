//! The SIP worker threads: one a worker, each with a runtime of its own and one socket of every listener.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::sip_answer::SipShared;
use super::sip_worker::SipWorker;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transport::udp::BoundSocket;

/// Starts the threads. `listeners` holds a socket for each worker of every listener.
///
/// # Errors
/// The system's, when it gives no thread or event loop.
pub fn spawn(
    shared: &Arc<SipShared>,
    listeners: Vec<Vec<BoundSocket>>,
    metrics: &Metrics,
    health: &Arc<Health>,
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
        let (shared, stop, metrics) = (Arc::clone(shared), stop.clone(), metrics.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let health = Arc::clone(health);
        let work = move || {
            runtime.block_on(LocalSet::new().run_until(async move {
                let mut loops = JoinSet::new();
                for (owner, socket) in sockets {
                    let (shared, stop, metrics) = (Arc::clone(&shared), stop.clone(), metrics.clone());
                    loops.spawn_local(async move {
                        match socket.register() {
                            Ok(socket) => SipWorker::new(shared, socket, owner, &metrics).run(stop).await,
                            Err(error) => tracing::error!(%error, "a SIP socket cannot be watched"),
                        }
                    });
                }
                while let Some(end) = loops.join_next().await {
                    // Without its sender nobody is left to stop it: the process ends at once.
                    if end.is_err() || !*stop.borrow() && stop.has_changed().is_ok() {
                        tracing::error!(panicked = end.is_err(), "a SIP socket is not read any more; restart the node");
                        health.set_worker_failed();
                    }
                }
            }));
        };
        threads.push(std::thread::Builder::new().name(format!("sip-{number}")).spawn(work)?);
    }
    Ok(threads)
}

/// Waits for their end.
pub async fn join(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
    if !joined.await.unwrap_or(false) {
        tracing::error!("a SIP worker ended by a panic");
    }
}
