//! What the operator does to a node's state by command: erase, back up, put back, change the signing key. Where the node
//! runs it does it itself; where it does not, this process takes its place.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::backup::{self, BackupError, Made};
use super::clock::{self, CLOCK};
use super::control::{self, Answer, Question, Tally, tally};
use super::data_dir::{DATABASE, DataDir, DataDirError, SIGNING, read_signing_keys, write_private};
use super::webhooks::subscriptions;
use crate::audit::kind::Kind;
use crate::audit::{checkpoint, export};
use crate::config::Configuration;
use crate::e164::E164;
use crate::receipt::keys::Keys;
use crate::store::{self, Audit, AuditLog, Checkpoint, StepError, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::verify::Verify;
use crate::verify::recent_calls::RecentCalls;
use crate::verify::records::Signing;

/// Why it was not done. The operator acts on it.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A node has the directory and does not answer.
    #[error("a node works in this data directory and does not answer on its control socket: {0}")]
    Silent(io::Error),
    /// The node answers that it did not do it.
    #[error("the node did not do it: {0}")]
    Refused(String),
    /// A list of entries cannot be read.
    #[error("{}: {why}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no state of a node.
    #[error("{} is not there: a relative data_dir counts from the directory in which the node is started", .0.display())]
    NoState(PathBuf),
    /// The directory holds a node's state.
    #[error(
        "{} holds a node's state; with --replace it is set aside there, and what was erased in it is erased in the backup too",
        .0.display()
    )]
    Occupied(PathBuf),
}

/// Erases what names a phone, of one application or of all. Gives how much, and whether the log is empty as well.
///
/// # Errors
/// [`OperatorError`].
pub async fn erase(
    configuration: &Configuration,
    phone: E164,
    application: Option<String>,
) -> Result<(Tally, bool), OperatorError> {
    require_state(configuration)?;
    let data_dir = match DataDir::open(&configuration.data_dir) {
        Ok(data_dir) => data_dir,
        Err(DataDirError::InUse(path)) => {
            let question = Question::Erase { phone: phone.to_string(), application };
            return match control::ask(&path, &question).await.map_err(OperatorError::Silent)? {
                Answer::Erased { erased, log_emptied } => Ok((erased, log_emptied)),
                other => Err(refused(other)),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let (store, _ready) = open(&data_dir.file(DATABASE), configuration)?;
    let verify = Verify::new(
        configuration.verify.clone(),
        data_dir.keys()?.pairs,
        CLOCK,
        store.clone(),
        Arc::new(RecentCalls::new(1)),
        signing(&data_dir, configuration)?,
        Metrics::new(),
        Arc::default(),
    );
    let erased = verify.erase_for_operator(application.as_deref(), phone).await;
    close(store).await;
    let erasure = erased.map_err(|error| OperatorError::Refused(error.to_string()))?;
    Ok((tally(erasure.erased), erasure.log_emptied))
}

/// Copies the state to a new directory.
///
/// # Errors
/// [`OperatorError`].
pub async fn back_up(configuration: &Configuration, to: &Path) -> Result<Made, OperatorError> {
    require_state(configuration)?;
    let to = std::path::absolute(to).map_err(|source| BackupError::File { path: to.to_owned(), source })?;
    let data_dir = match DataDir::open(&configuration.data_dir) {
        Ok(data_dir) => data_dir,
        Err(DataDirError::InUse(path)) => {
            return match control::ask(&path, &Question::Backup { to }).await.map_err(OperatorError::Silent)? {
                Answer::Made(made) => Ok(made),
                other => Err(refused(other)),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let made = backup::make(data_dir.path(), &to, clock::utc())?;
    let (store, _ready) = open(&data_dir.file(DATABASE), configuration)?;
    tell(&store, Kind::BackupMade, &serde_json::json!(made)).await?;
    close(store).await;
    Ok(made)
}

/// What putting a copy back did.
#[derive(Debug)]
pub struct PutBack {
    /// The copy.
    pub made: Made,
    /// Where the state is that was there before.
    pub aside: Option<PathBuf>,
    /// Erasures that were looked at, and what was erased again.
    pub erasures: usize,
    /// What was erased again.
    pub erased: Tally,
}

/// Puts a copy back. What the state before it, and the audit logs in `lists` (JSON Lines), say was erased, is erased
/// again. The node must not run.
///
/// # Errors
/// [`OperatorError`].
pub async fn put_back(
    configuration: &Configuration,
    from: &Path,
    lists: &[PathBuf],
    replace: bool,
) -> Result<PutBack, OperatorError> {
    let made = backup::check(from)?;
    let mut erasures = Vec::new();
    for list in lists {
        erasures.extend(read_list(list)?);
    }
    let data_dir = DataDir::open(&configuration.data_dir)?;
    let database = data_dir.file(DATABASE);
    let mut replaced = None;
    if database.symlink_metadata().is_ok() {
        if !replace {
            return Err(OperatorError::Occupied(data_dir.path().to_owned()));
        }
        match read_erasures(&database) {
            Ok((found, last)) => {
                erasures.extend(found);
                replaced = last;
            }
            // It is replaced for a reason, which may be this one.
            Err(error) => eprintln!(
                "warning: what was erased in the state that is replaced cannot be read ({error}); give an export of its audit log with --audit"
            ),
        }
    }
    for earlier in backup::set_aside_before(data_dir.path())? {
        // One that cannot be read was replaced for that reason, which was said then.
        erasures.extend(read_erasures(&earlier).map(|(found, _)| found).unwrap_or_default());
    }
    // All of it is done beside the state that is there, which stands untouched until the last moment.
    let staged = backup::stage(&made, from, data_dir.path())?;
    keep_signing_keys(&data_dir, &staged)?;
    let signing = Signing { keys: read_signing_keys(&staged)?, issuer: issuer(configuration) };
    let (store, _ready) = open(&staged.join(DATABASE), configuration)?;
    let mut seen = HashSet::new();
    erasures.retain(|text| seen.insert(text.clone()));
    let mut erased = store::Erased::default();
    for step in store::erase_again(&erasures, clock::utc()) {
        erased.add(done(|done| store.erase(step, |result| _ = done.send(result))).await?);
    }
    let entry = serde_json::json!({
        "backup": made.at, "erasures": erasures.len(), "erased": erased, "replaced": replaced,
    });
    tell(&store, Kind::Restored, &entry).await?;
    sign(&store, &signing).await?;
    let emptying = store.clone();
    let _ = tokio::task::spawn_blocking(move || emptying.truncate_log()).await;
    close(store).await;
    let aside = backup::put_in_place(&staged, data_dir.path(), clock::utc())?;
    Ok(PutBack { made, aside, erasures: erasures.len(), erased: tally(erased) })
}

/// A directory without a database is somebody's mistake about the place, not an empty node.
fn require_state(configuration: &Configuration) -> Result<(), OperatorError> {
    let database = configuration.data_dir.join(DATABASE);
    if database.symlink_metadata().is_ok() { Ok(()) } else { Err(OperatorError::NoState(database)) }
}

/// Has another key sign. A node that runs takes it up with its next reload. Gives the key's name.
///
/// # Errors
/// [`OperatorError`].
pub fn rotate(configuration: &Configuration) -> Result<String, OperatorError> {
    require_state(configuration)?;
    Ok(super::data_dir::rotate_signing_keys(&configuration.data_dir)?)
}

/// Has the keys of the state that is there go on to sign and to check, with those of the backup besides.
fn keep_signing_keys(data_dir: &DataDir, staged: &Path) -> Result<(), OperatorError> {
    let present = data_dir.file(SIGNING);
    let Ok(text) = std::fs::read_to_string(&present) else { return Ok(()) };
    let backed_up = read_signing_keys(staged)?;
    let merged = Keys::file_and(&text, backed_up.public());
    let merged = merged.map_err(|source| DataDirError::Signing { path: present, source })?;
    let path = staged.join(SIGNING);
    write_private(&path, merged.as_bytes()).map_err(|source| BackupError::File { path, source })?;
    Ok(())
}

async fn sign(store: &Store, signing: &Signing) -> Result<(), OperatorError> {
    let head = store.audit_head().await?;
    let at = clock::utc();
    let jws = checkpoint::sign(&signing.keys, &signing.issuer, &head.chain, at);
    done(|done| store.checkpoint(Checkpoint { seq: head.chain.seq, at, jws }, |result| _ = done.send(result))).await
}

fn read_list(path: &Path) -> Result<Vec<String>, OperatorError> {
    let list = |why: String| OperatorError::List { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| list(error.to_string()))?;
    let mut erasures = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let (entry, hash) =
            export::read_json_line(line).ok_or_else(|| list(format!("line {number} is no entry of an audit log")))?;
        if crate::audit::chain::hash(&entry).as_slice() != hash.as_slice() {
            return Err(list(format!("the entry in line {number} was changed: its hash does not fit")));
        }
        if entry.contains(&format!("\"kind\":\"{}\"", Kind::PhoneErased.as_str())) {
            erasures.push(entry);
        }
    }
    Ok(erasures)
}

/// What was erased in a database, and the number of the last entry of its audit log.
fn read_erasures(database: &Path) -> Result<(Vec<String>, Option<u64>), StoreError> {
    let log = AuditLog::open(database)?;
    let mut erasures = Vec::new();
    log.entries(Some(Kind::PhoneErased), |row| -> Result<(), StoreError> {
        erasures.push(row.text);
        Ok(())
    })?;
    Ok((erasures, log.last()?.map(|row| row.seq)))
}

async fn tell(store: &Store, kind: Kind, data: &serde_json::Value) -> Result<(), OperatorError> {
    let step = Audit { kind, at: clock::utc(), data: data.to_string() };
    done(|done| store.audit(step, |result| _ = done.send(result))).await
}

/// Asks the store for a step, and waits for it.
async fn done<T>(ask: impl FnOnce(oneshot::Sender<Result<T, StepError>>)) -> Result<T, OperatorError> {
    let (done, answer) = oneshot::channel();
    ask(done);
    answer.await.ok().and_then(Result::ok).ok_or_else(|| OperatorError::Refused("the database takes no writes".into()))
}

/// The store of a node that does not run: nothing is sent.
fn open(
    database: &Path,
    configuration: &Configuration,
) -> Result<(Store, mpsc::Receiver<crate::outbox::delivery::Due>), StoreError> {
    let settings = store::Settings { path: database.to_owned(), retention: configuration.retention };
    let (ready, kept) = mpsc::channel(1);
    // What ends now is told when the node runs again; nothing else is touched.
    let store =
        Store::open_unswept(&settings, subscriptions(&configuration.webhooks), Metrics::new(), Arc::default(), ready)?;
    Ok((store, kept))
}

async fn close(store: Store) {
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

/// What signs, by the node's files and configuration.
///
/// # Errors
/// Those of the data directory.
pub fn signing(data_dir: &DataDir, configuration: &Configuration) -> Result<Signing, DataDirError> {
    Ok(Signing { keys: data_dir.signing_keys()?, issuer: issuer(configuration) })
}

fn issuer(configuration: &Configuration) -> String {
    configuration.api.public_url.clone().unwrap_or_else(|| configuration.node_name.clone())
}

fn refused(answer: Answer) -> OperatorError {
    OperatorError::Refused(match answer {
        Answer::Failed(why) => why,
        _ => "its answer is of another version".into(),
    })
}
