//! The node's own files: the directory, its lock and the node's secret.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::receipt::keys::{Keys as SigningKeys, KeysError, PublicKeys, SEED};

/// The database.
pub const DATABASE: &str = "ringproof.db";

/// Marks a directory in which a restore was under way when it broke off.
pub(super) const UNFINISHED: &str = "restore-unfinished.mark";

/// The keys that sign receipts and the audit log.
pub(super) const SIGNING: &str = "signing.json";

/// Bytes of the node's secret.
const SECRET: usize = 32;

/// What the node's secret is used for, a key for each use.
pub struct Keys {
    /// SIP tags: the first half.
    pub tags: [u8; 16],
    /// The index of pairs: the second half.
    pub pairs: [u8; 16],
    /// Client tokens: derived from all of it.
    pub client: [u8; 32],
}

/// Why the directory cannot be used. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another `serve` works in it.
    #[error("{} is in use by another ringproof; stop that one or give this node a data_dir of its own", .0.display())]
    InUse(PathBuf),
    /// The system refuses a file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The secret is not what this program wrote.
    #[error("{} does not hold {SECRET} bytes; restore it from a backup, or remove it if no verification is pending", .0.display())]
    Secret(PathBuf),
    /// A restore broke off in it.
    #[error("a restore into {} broke off: run `ringproof restore` once more", .0.display())]
    Unfinished(PathBuf),
    /// The keys are not what this program wrote.
    #[error("{}: {source}; restore it from a backup", path.display())]
    Signing {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeysError,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A data directory that is locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory with mode 0700 where there is none, and locks it.
    ///
    /// # Errors
    /// `DataDirError::InUse` and `File`.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| fault(path, source))?;
        let mode = std::fs::metadata(path).map_err(|source| fault(path, source))?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others may look into the data directory; chmod 700 it");
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|source| fault(&lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(fault(&lock_path, source)),
        }
    }

    /// Refuses a directory in which a restore broke off.
    ///
    /// # Errors
    /// `DataDirError::Unfinished`.
    pub fn require_whole(&self) -> Result<(), DataDirError> {
        let broken = self.file(UNFINISHED).symlink_metadata().is_ok();
        if broken { Err(DataDirError::Unfinished(self.path.clone())) } else { Ok(()) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that sign receipts and the audit log. The first is made at the first start.
    ///
    /// # Errors
    /// `DataDirError::File`, `Signing` and `Random`.
    pub fn signing_keys(&self) -> Result<SigningKeys, DataDirError> {
        signing_keys(&self.path)
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The keys that the node's secret gives. It is made at the first start and kept, so that tags and tokens stay what
    /// they were after a restart.
    ///
    /// # Errors
    /// `DataDirError::File`, `Secret` and `Random`.
    pub fn keys(&self) -> Result<Keys, DataDirError> {
        let path = self.file("node.secret");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0u8; SECRET];
                getrandom::fill(&mut bytes)?;
                write_private(&path, &bytes).map_err(|source| fault(&path, source))?;
                bytes.to_vec()
            }
            Err(source) => return Err(fault(&path, source)),
        };
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(tags), Some(pairs)) if bytes.len() == SECRET => {
                Ok(Keys { tags: *tags, pairs: *pairs, client: derived(&bytes, b"client token") })
            }
            _ => Err(DataDirError::Secret(path)),
        }
    }
}

/// The keys in the data directory at `path`, where a node may be working; the first is made where there is none.
///
/// # Errors
/// As [`DataDir::signing_keys`].
pub fn signing_keys(path: &Path) -> Result<SigningKeys, DataDirError> {
    match read_signing_keys(path) {
        Err(DataDirError::File { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            let text = write_key(&path, &PublicKeys::default())?;
            SigningKeys::parse(&text).map_err(|source| DataDirError::Signing { path, source })
        }
        read => read,
    }
}

/// As [`signing_keys`], of a directory that has them.
///
/// # Errors
/// `DataDirError::File` and `Signing`.
pub fn read_signing_keys(path: &Path) -> Result<SigningKeys, DataDirError> {
    let file = path.join(SIGNING);
    let text = std::fs::read_to_string(&file).map_err(|source| fault(&file, source))?;
    SigningKeys::parse(&text).map_err(|source| DataDirError::Signing { path: file, source })
}

/// Puts another key behind those of a data directory, where a node may be working. Gives its name.
///
/// # Errors
/// As [`DataDir::signing_keys`].
pub fn rotate_signing_keys(path: &Path) -> Result<String, DataDirError> {
    let before = signing_keys(path)?;
    let file = path.join(SIGNING);
    let text = write_key(&file, before.public())?;
    let keys = SigningKeys::parse(&text).map_err(|source| DataDirError::Signing { path: file, source })?;
    Ok(keys.kid().to_owned())
}

fn write_key(file: &Path, former: &PublicKeys) -> Result<String, DataDirError> {
    let mut seed = [0; SEED];
    getrandom::fill(&mut seed)?;
    let text = SigningKeys::file_with(former, &seed);
    write_private(file, text.as_bytes()).map_err(|source| fault(file, source))?;
    Ok(text)
}

/// A key of its own for one use: it tells nothing of the secret, nor of the key for another use.
fn derived(secret: &[u8], usage: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(usage);
    mac.finalize().into_bytes().into()
}

/// Writes a file that only this user may read. It is whole or not there at all, also after a crash.
///
/// # Errors
/// The system's.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn fault(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::File { path: path.to_owned(), source }
}
