//! `ringproof doctor`: looks at the machine and the configuration before calls do.
//!
//! Owns what is looked at and what each finding means. Changes nothing, sends nothing to a webhook's receiver, and runs
//! beside a node that serves. Invariant: every check has a deadline, so that a dead disk or network is a finding and
//! never a wait without end.

mod certificate;
mod clock;
mod data_dir;
mod database;
mod finding;
mod limits;
mod ports;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

pub use certificate::judge_files;
pub use data_dir::NodeState;
pub use finding::{Finding, Level, Report};

/// What the doctor needs to know of a configuration.
#[derive(Debug)]
pub struct Settings {
    /// What is allowed in the configuration and yet deserves a second look.
    pub warnings: Vec<String>,
    /// Where the node keeps its state.
    pub data_dir: PathBuf,
    /// Everything that the node listens on.
    pub listeners: Vec<Listener>,
    /// Sockets that share a SIP listener's UDP address.
    pub workers: usize,
    /// File descriptors that the node would like to have.
    pub descriptors: u64,
    /// Bytes of memory that its bounded tables can need.
    pub memory: u64,
    /// Where events go.
    pub webhooks: Vec<Webhook>,
    /// Certificates that listeners show.
    pub certificates: Vec<CertificateFiles>,
}

/// One listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Whose: `sip`, `api` or `admin`.
    pub name: &'static str,
    /// Over what.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// What a listener's port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections, with TLS or without.
    Tcp,
}

/// One webhook endpoint.
#[derive(Debug)]
pub struct Webhook {
    /// Name of its application.
    pub application: String,
    /// Its address.
    pub url: hyper::Uri,
    /// How many secrets sign.
    pub secrets: usize,
    /// Whether private addresses and plain http are allowed.
    pub allow_private: bool,
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// Whose: the section that names them.
    pub name: &'static str,
    /// PEM file of the chain, the listener's own certificate first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Where the doctor reads the time.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Time of day, UTC.
    pub utc: fn() -> SystemTime,
    /// For measuring.
    pub instant: fn() -> Instant,
}

/// Longest time for what asks the kernel alone.
const QUICK: Duration = Duration::from_secs(5);
/// Longest time for what asks the disk: the parts have shorter ones of their own.
const DISK: Duration = Duration::from_secs(20);

/// Looks at everything. Ends within half a minute, whatever hangs.
pub async fn examine(settings: Settings, clocks: Clocks) -> Report {
    let Settings { warnings, data_dir, listeners, workers, descriptors, memory, webhooks, certificates } = settings;
    let path = data_dir.clone();
    let state = timeout(QUICK, tokio::task::spawn_blocking(move || data_dir::node_state(&path)));
    let state = state.await.ok().and_then(Result::ok).unwrap_or(NodeState::Unknown);

    let ports = blocking("ports", QUICK, move || ports::check(&listeners, workers, state));
    let limits = blocking("limits", QUICK, move || limits::check(descriptors, memory));
    let disk = blocking("disk", DISK, move || {
        let mut findings = data_dir::check(&data_dir, state, clocks);
        let (database, newest_event) = database::check(&data_dir.join("ringproof.db"));
        findings.extend(database);
        findings.extend(clock::check((clocks.utc)(), newest_event));
        findings
    });
    let certificates = blocking("certificate", QUICK, move || {
        certificates.iter().flat_map(|files| certificate::check(files, (clocks.utc)())).collect()
    });
    let webhooks = webhooks::check(webhooks, clocks);
    let (ports, limits, disk, certificates, webhooks) = tokio::join!(ports, limits, disk, certificates, webhooks);

    let mut findings = vec![Finding::ok("configuration", "", "is complete and consistent")];
    findings.extend(warnings.into_iter().map(|warning| Finding::warn("configuration", "", warning)));
    for group in [ports, limits, disk, certificates, webhooks] {
        findings.extend(group);
    }
    Report::new(findings)
}

/// Runs what may block on a thread that nobody waits for longer than `deadline`.
async fn blocking(
    check: &'static str,
    deadline: Duration,
    work: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    match timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(_)) => vec![Finding::fail(check, "", "the check broke off").advise("report this")],
        Err(_) => {
            let found = format!("no answer within {} s", deadline.as_secs());
            vec![
                Finding::fail(check, "", found).advise("something below hangs, mostly a disk or a network file system"),
            ]
        }
    }
}
