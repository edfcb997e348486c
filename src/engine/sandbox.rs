//! What a sandbox application lacks is made for it: a key, and a receiver for its webhooks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::data_dir::{DataDir, DataDirError, write_private};
use crate::api::{Key, key};
use crate::config::Configuration;
use crate::outbox::delivery::EndpointId;
use crate::outbox::event::EventType;
use crate::verify::settings::ApplicationId;
use crate::webhook::receiver::Receiver;
use crate::webhook::settings::Endpoint;
use crate::webhook::signature::{new_secret, parse_secret};
use crate::webhook::signing_key::SigningKey;

/// The file that holds what was made, so that it outlives a restart.
const FILE: &str = "sandbox.json";

/// Kept for one application.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of its key in hexadecimal.
    key_hash: Option<String>,
    /// Secret of the built-in receiver.
    webhook_secret: Option<String>,
}

/// A key that was made just now, to be shown once.
pub struct Minted {
    /// Whose.
    pub application: String,
    /// The key.
    pub key: SecretString,
}

/// What was made for the sandbox applications.
pub struct Sandbox {
    /// Keys that nobody has seen yet.
    pub minted: Vec<Minted>,
    /// Applications whose key was made earlier.
    pub kept: Vec<String>,
    /// The receiver of each application without a webhook.
    receivers: HashMap<String, BuiltIn>,
}

/// A built-in receiver.
enum BuiltIn {
    /// One that runs already.
    Running,
    /// One that is to run.
    Bound(Receiver),
}

/// The built-in receivers that run, by application. Each ends when it is no longer among them.
#[derive(Default)]
pub struct Receivers(HashMap<String, (SocketAddr, watch::Sender<bool>)>);

impl Receivers {
    /// Where they are.
    pub fn addresses(&self) -> HashMap<String, SocketAddr> {
        self.0.iter().map(|(application, (address, _))| (application.clone(), *address)).collect()
    }

    /// Runs those of `sandbox` and no others.
    pub fn run(&mut self, sandbox: &mut Sandbox) {
        let mut before = std::mem::take(&mut self.0);
        for (application, receiver) in sandbox.receivers.drain() {
            let running = match receiver {
                BuiltIn::Running => before.remove(&application),
                BuiltIn::Bound(receiver) => {
                    let address = receiver.address();
                    let (end, ended) = watch::channel(false);
                    // It ends with its sender, which is dropped with the node at the latest.
                    tokio::spawn(receiver.run(|event| super::listening::say(event), ended));
                    Some((address, end))
                }
            };
            self.0.extend(running.map(|running| (application, running)));
        }
    }
}

/// Why it could not be made. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A file of the node.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file does not hold what this program wrote.
    #[error("{FILE} in the data directory is broken ({0}); remove it to have new sandbox keys made")]
    Broken(String),
    /// No port for the receiver.
    #[error("the built-in webhook receiver cannot listen: {0}")]
    Receiver(io::Error),
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Completes the configuration's sandbox applications. `running` are the receivers that run already: they go on.
///
/// # Errors
/// [`SandboxError`].
pub async fn complete(
    configuration: &mut Configuration,
    data_dir: &DataDir,
    running: &HashMap<String, SocketAddr>,
) -> Result<Sandbox, SandboxError> {
    let path = data_dir.file(FILE);
    let mut kept: BTreeMap<String, Kept> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| SandboxError::Broken(error.to_string()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(source) => return Err(DataDirError::File { path, source }.into()),
    };
    let mut sandbox = Sandbox { minted: Vec::new(), kept: Vec::new(), receivers: HashMap::new() };
    let mut changed = false;
    for (place, application) in (0u16..).zip(&configuration.verify.applications) {
        let id = ApplicationId(place);
        if application.live || configuration.verify.retired.contains(&id) {
            continue;
        }
        let own = kept.entry(application.name.clone()).or_default();
        if !configuration.keys.iter().any(|key| key.application == id) {
            let hash = if let Some(text) = &own.key_hash {
                sandbox.kept.push(application.name.clone());
                unhex(text).ok_or_else(|| SandboxError::Broken(format!("the key of {}", application.name)))?
            } else {
                let (text, hash) = key::mint(false)?;
                own.key_hash = Some(key::hex(&hash));
                sandbox.minted.push(Minted { application: application.name.clone(), key: text });
                changed = true;
                hash
            };
            configuration.keys.push(Key::unrestricted(id, hash));
        }
        if !configuration.webhooks.iter().any(|endpoint| endpoint.application == application.name) {
            let text = if let Some(text) = &own.webhook_secret {
                text.clone()
            } else {
                changed = true;
                own.webhook_secret.insert(new_secret()?).clone()
            };
            let secret = || parse_secret(&text).map_err(|error| SandboxError::Broken(error.to_string()));
            let (address, receiver) = if let Some(address) = running.get(&application.name) {
                (*address, BuiltIn::Running)
            } else {
                let bound = Receiver::bind(vec![secret()?], super::clock::utc).await;
                let receiver = bound.map_err(SandboxError::Receiver)?;
                (receiver.address(), BuiltIn::Bound(receiver))
            };
            let url = format!("http://{address}/hook");
            configuration.webhooks.push(Endpoint {
                id: EndpointId::built_in(&application.name),
                application: application.name.clone(),
                url: url.parse().map_err(|_| SandboxError::Broken(url))?,
                secrets: vec![SigningKey::Hmac(secret()?)],
                // A call that nobody waits for is nothing to print, and there may be many.
                events: EventType::ALL.into_iter().filter(|kind| *kind != EventType::CallUnmatched).collect(),
                allow_private: true,
                batch: 1,
            });
            sandbox.receivers.insert(application.name.clone(), receiver);
        }
    }
    if changed {
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| SandboxError::Broken(error.to_string()))?;
        write_private(&path, &text).map_err(|source| DataDirError::File { path, source })?;
    }
    Ok(sandbox)
}

impl Sandbox {
    /// What a newcomer is told: the new keys with two lines to paste, or where older keys are.
    #[must_use]
    pub fn welcome(&self, configuration: &Configuration, api: &str, sip: &str) -> String {
        let old = self.kept.iter().map(|name| {
            format!(
                "\nThe sandbox application \"{name}\" has the key that was shown at its first start. To have a new one \
                 made, stop, remove {FILE} from the data directory, and start again.\n"
            )
        });
        std::iter::once(self.welcome_new(configuration, api, sip)).chain(old).collect()
    }

    /// As [`Sandbox::welcome`], of the new keys alone.
    #[must_use]
    pub fn welcome_new(&self, configuration: &Configuration, api: &str, sip: &str) -> String {
        // The first that has peers: others are gone.
        let first = configuration.peers.first().map(|(_, id)| &configuration.trunks[usize::from(id.0)]);
        let country = first.map_or("SA", |trunk| trunk.dialplan.country());
        let (phone, program) = (example_mobile(country), program());
        let new = self.minted.iter().map(|Minted { application, key }| {
            let key = key.expose_secret();
            format!(
                "\nA key was made for the sandbox application \"{application}\". It is shown this once. Two lines to \
                 try it, in another terminal:\n\n\
                 NUMBER=$(curl -sS {api}/v1/verifications -H 'Authorization: Bearer {key}' \
                 -H 'Content-Type: application/json' -d '{{\"phone\":\"{phone}\"}}' | tee /dev/stderr \
                 | grep -o '\"number\":\"[^\"]*' | cut -d'\"' -f4); echo\n\
                 {program} call --from {phone} --to \"$NUMBER\" --via {sip}\n",
            )
        });
        new.collect()
    }
}

/// How this program was started, for a line to paste.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "ringproof".into());
    let directory = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&directory).unwrap_or(&program).display().to_string()
}

fn example_mobile(country: &str) -> String {
    let example = country.parse().ok().and_then(|region| {
        PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, PhoneNumberType::Mobile).ok()
    });
    example.map_or_else(|| "+966512345678".to_owned(), |number| number.format_as(PhoneNumberFormat::E164).into_owned())
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}
