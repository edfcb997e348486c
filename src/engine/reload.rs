//! SIGHUP: another configuration while calls and requests go on.
//!
//! Owns the order. First everything is read and made ready, and whatever is wrong refuses the file as a whole; then all
//! is put in force, which cannot fail and takes no await. Invariant: whoever reads a setting finds the old or the new
//! one whole, and what a reader is led to is there already: settings know every trunk and application before routes and
//! keys name them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::{JoinError, spawn_blocking};

use super::data_dir::{DataDir, DataDirError};
use super::listening::{PeerFilters, Told, say};
use super::peers::Peers;
use super::sandbox::{self, Receivers, Sandbox, SandboxError};
use super::serve::access;
use super::sip_answer::SipShared;
use super::webhooks::Webhooks;
use super::{audit_log, clock, operator};
use crate::admin;
use crate::api::Access;
use crate::api::tls::Tls;
use crate::config::{self, ConfigErrors, Configuration};
use crate::outbox::delivery::EndpointId;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::verify::earlier::TooManyChanges;
use crate::verify::records::{Kind, Signing};
use crate::verify::{NextSettings, Verify};

/// What a reload replaces, and what it reads against.
pub struct Reload {
    /// The configuration file.
    pub file: PathBuf,
    /// The configuration in force.
    pub running: Arc<Configuration>,
    pub data_dir: Arc<DataDir>,
    pub verify: Verify,
    pub shared: Arc<SipShared>,
    pub access: Arc<ArcSwap<Access>>,
    /// What the API's listener speaks; none where that is plain HTTP.
    pub tls: Option<Tls>,
    pub admin_token: Arc<admin::Token>,
    pub store: Store,
    pub receivers: Receivers,
    pub metrics: Metrics,
    /// Where the node listens, for the words to a newcomer.
    pub told: Told,
    /// Who is let in at the UDP sockets.
    pub filters: PeerFilters,
    /// Endpoints that deliveries go to.
    pub endpoints: HashSet<EndpointId>,
    pub webhooks: Webhooks,
}

/// A configuration that is ready to be put in force.
struct Next {
    configuration: Configuration,
    settings: NextSettings,
    sandbox: Sandbox,
    signing: Signing,
}

/// Why the file is not put in force. The operator must act; the node goes on as it was.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It is wrong, or changes what only a restart changes.
    #[error("{0}")]
    File(#[from] ConfigErrors),
    /// Too much has changed lately.
    #[error(transparent)]
    Changes(#[from] TooManyChanges),
    /// The keys that sign cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What its sandbox applications lack cannot be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A fault of this program, worth a report.
    #[error("the file was not read to its end: {0}")]
    Broken(#[from] JoinError),
}

impl Reload {
    /// How long calls are handled after SIGTERM.
    pub fn drain(&self) -> Duration {
        self.running.sip.drain
    }

    /// Reads the file and puts it in force, or keeps what is and says why. Whether the file is in force. Dropped before
    /// its end it has changed nothing.
    pub async fn run(&mut self) -> bool {
        let result = self.prepare().await;
        let is_in_force = match result {
            Ok(next) => {
                let rotated = self.put_in_force(next);
                audit_log::loaded(&self.verify, &self.file, &self.running, self.endpoints.len());
                if rotated {
                    let data = serde_json::json!({"signing_key": self.verify.signing_key()});
                    self.verify.audit_later(Kind::SigningKeyRotated, &data);
                }
                true
            }
            Err(refusal) => {
                for fault in refusal.to_string().lines() {
                    tracing::error!("{fault}");
                }
                tracing::error!(file = %self.file.display(), "reload refused: the configuration in force stays");
                audit_log::refused(&self.verify, &self.file, refusal.to_string().lines().count());
                false
            }
        };
        self.metrics.config_reloads.with_label_values(&[if is_in_force { "ok" } else { "refused" }]).inc();
        note_reading(&self.metrics, is_in_force);
        is_in_force
    }

    /// Everything that can fail or take time: files on a network or a sick disk hold up no thread that others need.
    async fn prepare(&self) -> Result<Next, Refusal> {
        let (file, running, data_dir) = (self.file.clone(), Arc::clone(&self.running), Arc::clone(&self.data_dir));
        let (verify, receivers) = (self.verify.clone(), self.receivers.addresses());
        let reading = spawn_blocking(move || -> Result<Next, Refusal> {
            let mut configuration = config::reload(&file, &running)?;
            let settings = verify.prepare_settings(configuration.verify.clone())?;
            // Last, for a key that is made is to be shown.
            let complete = sandbox::complete(&mut configuration, &data_dir, &receivers);
            let sandbox = Handle::current().block_on(complete)?;
            let signing = operator::signing(&data_dir, &configuration)?;
            Ok(Next { configuration, settings, sandbox, signing })
        });
        reading.await?
    }

    /// Settings first: routes and keys name trunks and applications by places that only the new settings have, and a
    /// call that came by the old routes finds its number in them as well, since what was taken away is remembered.
    /// Endpoints before keys: the first event of a new application finds them.
    /// Whether another key signs from now on.
    fn put_in_force(&mut self, next: Next) -> bool {
        let Next { mut configuration, settings, mut sandbox, signing } = next;
        self.verify.replace_settings(settings);
        self.shared.replace_routes(configuration.trunks.clone(), Peers::new(&configuration.peers), &self.metrics);
        self.filters.admit(&configuration.peers);
        self.receivers.run(&mut sandbox);
        let endpoints = configuration.webhooks.iter().map(|one| one.id.clone()).collect();
        self.webhooks.replace(std::mem::take(&mut configuration.webhooks));
        self.access.store(Arc::new(access(&configuration)));
        if let (Some(tls), Some(files)) = (&self.tls, &configuration.api.tls) {
            tls.replace(&files.identity);
        }
        self.admin_token.replace(configuration.admin_token.as_ref());
        self.store.set_retention(configuration.retention);
        let rotated = self.verify.replace_signing(signing);

        for warning in config::warnings(&configuration, clock::utc()) {
            tracing::warn!("{warning}");
        }
        tell_change(&self.running, &configuration, &Difference::new(&self.endpoints, &endpoints));
        self.endpoints = endpoints;
        let welcome = sandbox.welcome_new(&configuration, &self.told.api_url(), &self.told.sip_via());
        if !welcome.is_empty() {
            say(&welcome);
        }
        self.running = Arc::new(configuration);
        rotated
    }
}

/// Notes whether the file as it was read is in force.
pub fn note_reading(metrics: &Metrics, is_in_force: bool) {
    metrics.config_successful.set(is_in_force.into());
    if is_in_force {
        let now = clock::utc().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.config_success_timestamp.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

/// One line: how much there is now, what came and what went.
fn tell_change(before: &Configuration, now: &Configuration, endpoints: &Difference) {
    let trunks = Difference::new(&before.trunk_names(), &now.trunk_names());
    let applications = Difference::new(&before.application_names(), &now.application_names());
    let keys = |configuration: &Configuration| -> HashSet<[u8; 32]> {
        configuration.keys.iter().map(|key| key.hash).collect()
    };
    let keys = Difference::new(&keys(before), &keys(now));
    let numbers = |configuration: &Configuration| -> u64 {
        configuration.verify.numbers.ranges().iter().map(|range| u64::from(range.count)).sum()
    };
    tracing::info!(
        %trunks, %applications, %keys, %endpoints, numbers = numbers(now), numbers_before = numbers(before),
        "reloaded"
    );
}

/// How many there are, how many of them are new and how many are gone.
struct Difference {
    now: usize,
    came: usize,
    went: usize,
}

impl Difference {
    fn new<T: Eq + std::hash::Hash>(before: &HashSet<T>, now: &HashSet<T>) -> Self {
        Self { now: now.len(), came: now.difference(before).count(), went: before.difference(now).count() }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (+{} -{})", self.now, self.came, self.went)
    }
}
