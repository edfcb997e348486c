//! The operator's way to a node that runs: a socket in its data directory, which only the node's own user can open.
//!
//! One line of JSON asks, one answers. Invariant: whoever may speak here may read and write the node's files anyway.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backup::{self, Made};
use super::data_dir::DataDir;
use crate::e164::E164;
use crate::verify::Verify;
use crate::verify::erase::Erased;
use crate::verify::records::Kind;

/// Name of the socket.
const SOCKET: &str = "control.sock";

/// Longest line.
const LONGEST: u64 = 64 << 10;

/// How long a line may be on its way.
const LINE: Duration = Duration::from_secs(10);

/// Questions that are answered at once. More of them wait for their turn.
const AT_ONCE: usize = 4;

/// Pause after a failed accept, which is mostly for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Erase what names this phone.
    Erase {
        /// E.164 with `+`.
        phone: String,
        /// Of this application alone.
        application: Option<String>,
    },
    /// Make a copy of the node's state in a new directory.
    Backup {
        /// The directory, from the root.
        to: PathBuf,
    },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was erased.
    Erased {
        /// How much.
        erased: Tally,
        /// Whether the write-ahead log is empty as well.
        log_emptied: bool,
    },
    /// What was copied.
    Made(Made),
    /// It was not done, and why.
    Failed(String),
}

/// How much was erased, as words and numbers.
pub type Tally = std::collections::BTreeMap<String, u64>;

/// An erasure's counts by name.
#[must_use]
pub fn tally(erased: Erased) -> Tally {
    let value = serde_json::to_value(erased).unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}

/// Answers until `stop` turns true. A node that cannot open its socket goes on without it, and says so.
pub async fn serve(data_dir: Arc<DataDir>, verify: Verify, mut stop: watch::Receiver<bool>) {
    let path = data_dir.file(SOCKET);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `erase` and `backup` work only while the node is stopped");
            return;
        }
    };
    // Those that are under way at the stop are broken off: the one who asked is told nothing, and asks again.
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            Some(_) = conversations.join_next() => {}
            accepted = listener.accept(), if conversations.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    let (data_dir, verify) = (Arc::clone(&data_dir), verify.clone());
                    conversations.spawn(async move {
                        if let Err(error) = converse(stream, &data_dir, &verify).await {
                            tracing::debug!(%error, "a question on the control socket broke off");
                        }
                    });
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
        }
    }
    let _ = std::fs::remove_file(path);
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The lock of the directory is held, so one that is there was left by a crash.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

async fn converse(stream: UnixStream, data_dir: &DataDir, verify: &Verify) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let reading = async { BufReader::new(read.take(LONGEST)).read_line(&mut line).await };
    timeout(LINE, reading).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(question, data_dir, verify).await,
        Err(error) => Answer::Failed(format!("the question is not one of this version: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    timeout(LINE, write.write_all(text.as_bytes())).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn answer(question: Question, data_dir: &DataDir, verify: &Verify) -> Answer {
    match question {
        Question::Erase { phone, application } => {
            let Ok(phone) = phone.parse::<E164>() else { return Answer::Failed("the phone is no number".into()) };
            match verify.erase_for_operator(application.as_deref(), phone).await {
                Ok(erasure) => Answer::Erased { erased: tally(erasure.erased), log_emptied: erasure.log_emptied },
                Err(error) => Answer::Failed(error.to_string()),
            }
        }
        Question::Backup { to } => {
            let from = data_dir.path().to_owned();
            let copying = tokio::task::spawn_blocking(move || backup::make(&from, &to, super::clock::utc()));
            match copying.await {
                Ok(Ok(made)) => {
                    let _ = verify.audit(Kind::BackupMade, &made).await;
                    Answer::Made(made)
                }
                Ok(Err(error)) => Answer::Failed(error.to_string()),
                Err(_) => Answer::Failed("the copy was not finished".into()),
            }
        }
    }
}

/// Asks the node that works in `data_dir`.
///
/// # Errors
/// The system's, where no node answers.
pub async fn ask(data_dir: &Path, question: &Question) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(data_dir.join(SOCKET)).await?;
    let mut text = serde_json::to_string(question)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(io::Error::from)
}
