//! What goes into the audit log beside the store's own entries, and when it is signed.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Configuration;
use crate::verify::Verify;
use crate::verify::records::{Kind, SIGNED_WITHIN};

/// How often it is looked whether the log has grown enough to be signed.
const LOOK: Duration = Duration::from_secs(1);

/// Signs the log and writes down how keys are used, until `stop` turns true.
pub async fn keep(verify: Verify, mut stop: watch::Receiver<bool>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut minute = interval(SIGNED_WITHIN);
    minute.tick().await;
    loop {
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            // What cannot be stored or signed now is the next time.
            _ = look.tick() => {
                verify.audit_again();
                let _ = verify.sign_audit(false).await;
            }
            _ = minute.tick() => {
                verify.audit_key_uses().await;
                let _ = verify.sign_audit(true).await;
            }
        }
    }
}

/// The first entries of a start.
pub fn begin(verify: &Verify, file: &Path, configuration: &Configuration, webhooks: usize) {
    let started = serde_json::json!({"version": env!("CARGO_PKG_VERSION"), "node": configuration.node_name});
    verify.audit_later(Kind::NodeStarted, &started);
    loaded(verify, file, configuration, webhooks);
}

/// A configuration is in force, with so many webhook endpoints.
pub fn loaded(verify: &Verify, file: &Path, configuration: &Configuration, webhooks: usize) {
    verify.audit_later(Kind::ConfigLoaded, &Loaded::new(verify, file, configuration, webhooks));
}

/// A file was refused, for so many faults.
pub fn refused(verify: &Verify, file: &Path, faults: usize) {
    verify.audit_later(Kind::ConfigRefused, &serde_json::json!({"file": file.display().to_string(), "faults": faults}));
}

/// The last entries of a node that stops in order.
pub async fn end(verify: &Verify) {
    verify.audit_again();
    verify.audit_key_uses().await;
    if verify.audit(Kind::NodeStopped, &serde_json::json!({})).await.is_err() {
        tracing::error!("the audit log lacks the end of this node: the store takes nothing now");
    }
    let _ = verify.sign_audit(true).await;
}

#[derive(Serialize)]
struct Loaded<'a> {
    file: String,
    sha256: String,
    trunks: Vec<&'a str>,
    numbers: u64,
    webhooks: usize,
    applications: Vec<Application<'a>>,
    signing_key: String,
}

#[derive(Serialize)]
struct Application<'a> {
    name: &'a str,
    live: bool,
    keys: Vec<&'a str>,
}

impl<'a> Loaded<'a> {
    fn new(verify: &Verify, file: &Path, configuration: &'a Configuration, webhooks: usize) -> Self {
        let mut trunks: Vec<&str> = configuration.trunk_names().into_iter().collect();
        trunks.sort_unstable();
        let names = configuration.application_names();
        let applications = configuration.verify.applications.iter().enumerate();
        let applications = applications.filter(|(_, one)| names.contains(one.name.as_str())).map(|(place, one)| {
            let own = configuration.keys.iter().filter(|key| usize::from(key.application.0) == place);
            Application { name: &one.name, live: one.live, keys: own.map(|key| key.name.as_str()).collect() }
        });
        Self {
            file: file.display().to_string(),
            sha256: hex::encode(configuration.sha256),
            trunks,
            numbers: configuration.verify.numbers.ranges().iter().map(|range| u64::from(range.count)).sum(),
            webhooks,
            applications: applications.collect(),
            signing_key: verify.signing_key(),
        }
    }
}
