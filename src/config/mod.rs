//! Loads the configuration file and the environment into each module's own settings.
//!
//! Owns the file's grammar, its defaults and everything that can be wrong in it. Does not decide what a setting does,
//! and no module reads it: `main` hands the result to the engine. Invariant: a [`Configuration`] that exists is
//! complete and consistent; otherwise all faults are known at once, each with its line.

mod application;
mod dno;
mod document;
mod effective;
mod errors;
mod fault;
mod listener;
mod name;
mod nearest;
mod network;
mod number;
mod origin;
mod places;
mod reference;
mod reject;
mod secret;
mod section;
mod syntax;
mod trunk;
mod webhook;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use toml::de::DeTable;

pub use dno::{DnoFormat, do_not_originate};
pub use effective::effective;
pub use errors::{ConfigErrors, Located, Place};
pub use fault::{E164Shown, Fault, Quoted, RangeShown};

use crate::api::{self, Key};
use crate::call::dialplan::NumberFormat;
use crate::call::event::TrunkId;
use crate::call::evidence::Proof;
use crate::call::trunk::Trunk;
use crate::store::Retention;
use crate::transport::tcp;
use crate::verify::settings::{ApplicationId, Settings};
use crate::webhook::settings::Endpoint;

/// Largest configuration file in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Everything that the file says, in each module's own terms. After a reload it has entries for trunks and applications
/// that are gone as well.
#[derive(Debug)]
pub struct Configuration {
    /// `node.name`.
    pub node_name: String,
    /// Where the node keeps its state; relative to the working directory.
    pub data_dir: PathBuf,
    /// `[sip]`.
    pub sip: SipSettings,
    /// By [`TrunkId`]: 1 to 64 that have peers, the built-in one where there is a sandbox application, and those that
    /// are gone since the start.
    pub trunks: Vec<Trunk>,
    /// Networks of the trunks, no two alike. The longest prefix wins.
    pub peers: Vec<(IpNet, TrunkId)>,
    /// Applications and numbers.
    pub verify: Settings,
    /// The keys of all applications, no two alike.
    pub keys: Vec<Key>,
    /// The pages that may follow verifications of their application.
    pub origins: Vec<AllowedOrigin>,
    /// The webhooks of all applications.
    pub webhooks: Vec<Endpoint>,
    /// Where the REST API listens.
    pub api_listen: SocketAddr,
    /// The rest of `[api]`.
    pub api: api::settings::Settings,
    /// Where metrics and health are served.
    pub admin_listen: SocketAddr,
    /// The bearer token of the admin side; there wherever `admin_listen` is not loopback.
    pub admin_token: Option<SecretString>,
    /// How long records are kept, each class an hour at least.
    pub retention: Retention,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// What [`effective`] tells of the trunks beyond their settings, by [`TrunkId`]; nothing of the built-in one.
    trunk_extras: Vec<TrunkExtras>,
}

impl Configuration {
    /// The trunks that the file names.
    #[must_use]
    pub fn trunk_names(&self) -> HashSet<&str> {
        self.peers.iter().map(|(_, id)| self.verify.trunks[usize::from(id.0)].as_str()).collect()
    }

    /// The applications that the file names.
    #[must_use]
    pub fn application_names(&self) -> HashSet<&str> {
        let all = self.verify.applications.iter().zip((0..).map(ApplicationId));
        all.filter(|(_, id)| !self.verify.retired.contains(id)).map(|(one, _)| one.name.as_str()).collect()
    }
}

/// `[sip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipSettings {
    /// At least one, no two alike.
    pub listen: Vec<SipListener>,
    /// Caps and patience of each TCP listener.
    pub tcp: tcp::Settings,
    /// Worker threads, at least one.
    pub workers: usize,
    /// Entries of the recent-calls table.
    pub recent_calls: usize,
    /// How long calls are handled while draining.
    pub drain: Duration,
}

/// One of `sip.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SipListener {
    /// Protocol.
    pub transport: SipTransport,
    /// Address and port; port 0 has the system pick one.
    pub address: SocketAddr,
}

/// The protocols on which this version hears SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SipTransport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

impl fmt::Display for SipListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            SipTransport::Udp => "udp",
            SipTransport::Tcp => "tcp",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// One of an application's `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// Whose.
    pub application: ApplicationId,
    /// As a browser's `Origin` header writes it.
    pub text: String,
}

/// What the file says of a trunk and no module needs later.
#[derive(Debug, Clone, Copy)]
struct TrunkExtras {
    number_format: NumberFormat,
    allow_loopback: bool,
    profile: &'static str,
}

/// Reads the file at `path` with this process's environment.
///
/// # Errors
/// All faults of the file, for the operator.
pub fn load(path: &Path) -> Result<Configuration, ConfigErrors> {
    let name = path.display().to_string();
    let text = read_text(path).map_err(|fault| ConfigErrors::whole(&name, fault))?;
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    read(&text, &name, directory, &|name| std::env::var(name).ok(), None)
}

/// Reads `text`, the content of a file called `file_name`. Paths of secrets are relative to that file; `env` looks up
/// an environment variable.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Configuration, ConfigErrors> {
    let directory = Path::new(file_name).parent().unwrap_or(Path::new("")).to_owned();
    read(text, file_name, directory, env, None)
}

/// Reads the file at `path` for a node that runs with `running`. What was there keeps its place, so that places go on to
/// mean what they meant; what is gone keeps its entry, without peers, numbers, keys and webhooks.
///
/// # Errors
/// As [`load`], and each change that only a restart makes.
pub fn reload(path: &Path, running: &Configuration) -> Result<Configuration, ConfigErrors> {
    let name = path.display().to_string();
    let text = read_text(path).map_err(|fault| ConfigErrors::whole(&name, fault))?;
    reparse(&text, &name, &|name| std::env::var(name).ok(), running)
}

/// As [`reload`], of `text`, the content of a file called `file_name`; see [`parse`].
///
/// # Errors
/// As [`reload`].
pub fn reparse(
    text: &str,
    file_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    running: &Configuration,
) -> Result<Configuration, ConfigErrors> {
    let directory = Path::new(file_name).parent().unwrap_or(Path::new("")).to_owned();
    let fresh = read(text, file_name, directory, env, Some(running))?;
    places::keep(fresh, running).map_err(|fault| ConfigErrors::whole(file_name, fault))
}

/// What is allowed at `now` (UTC) and yet deserves a second look, one line each.
#[must_use]
pub fn warnings(configuration: &Configuration, now: SystemTime) -> Vec<String> {
    let in_use = |id: TrunkId| configuration.peers.iter().any(|(_, owner)| *owner == id);
    let trunks = configuration.trunks.iter().zip((0..).map(TrunkId)).filter(|(_, id)| in_use(*id));
    let public = trunks.map(|(trunk, _)| trunk).filter(|trunk| trunk.proof(false) == Proof::None);
    let mut warnings: Vec<String> = public
        .map(|trunk| {
            let name = &trunk.name;
            format!("trunk `{name}` has a public UDP path: whoever forges a peer's address can place its calls, so they prove assurance C at most; write `confirm = \"ack\"`, and its calls count once the peer has acknowledged the refusal")
        })
        .collect();
    for key in configuration.keys.iter().filter(|key| key.expires.is_some_and(|expires| expires <= now)) {
        let application = &configuration.verify.application(key.application).name;
        let (name, when) = (&key.name, key.expires.map(humantime::format_rfc3339_seconds));
        let when = when.map(|when| when.to_string()).unwrap_or_default();
        warnings.push(format!(
            "key {name} of application `{application}` expired at {when}: requests with it get 401; remove it"
        ));
    }
    if let Some(tls) = configuration.api.tls.as_ref().filter(|tls| tls.identity.expires() <= now) {
        let (path, when) = (tls.cert.display(), humantime::format_rfc3339_seconds(tls.identity.expires()));
        let path = Quoted::new(path.to_string());
        warnings
            .push(format!("the certificate in `{path}` expired at {when}: clients refuse the API; have it renewed"));
    }
    if !configuration.api_listen.ip().is_loopback() && configuration.api.tls.is_none() {
        let address = configuration.api_listen;
        warnings.push(format!("the API listens on {address} without TLS: keys and numbers cross that network in the clear; give it `tls = {{ cert = \"..\", key = \"..\" }}`, or put a TLS proxy before it and listen on loopback"));
    }
    warnings
}

fn read_text(path: &Path) -> Result<String, Fault> {
    use std::io::Read;

    let unreadable = |error: std::io::Error| Fault::Unreadable { reason: error.kind().to_string() };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Fault::TooLarge { max: MAX_FILE });
    }
    String::from_utf8(bytes).map_err(|error| Fault::NotText { offset: error.utf8_error().valid_up_to() })
}

fn read(
    text: &str,
    file_name: &str,
    directory: PathBuf,
    env: &dyn Fn(&str) -> Option<String>,
    running: Option<&Configuration>,
) -> Result<Configuration, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let secrets = secret::Sources { env, directory };
    let reading = section::Reading { running, faults: errors::Faults::new(text), secrets };
    let configuration = {
        let root = section::Section::new(table.get_ref(), 0..0, &document::ROOT, &reading);
        document::read(&root)
    };
    match (reading.faults.into_errors(file_name, syntax::faults(text, &errors)), configuration) {
        (None, Some(configuration)) => Ok(Configuration { sha256: Sha256::digest(text).into(), ..configuration }),
        (Some(errors), _) => Err(errors),
        (None, None) => unreachable!("whatever is left out of a configuration has told its fault"),
    }
}
