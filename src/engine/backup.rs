//! Copies of the node's state, and putting one back.
//!
//! A copy is a directory: the database as of one moment, the node's own small files, and a manifest with the hash of each.
//! It is whole or not there. Putting one back erases again what was erased since it was made.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::data_dir::{DATABASE, UNFINISHED, write_private};
use crate::store::{self, StoreError};

/// The small files that belong to the state, where they are there.
const SMALL: [&str; 3] = ["node.secret", "signing.json", "sandbox.json"];

const MANIFEST: &str = "manifest.json";

/// Where a copy is made ready in a data directory.
const STAGED: &str = "restore-unfinished";

/// How folders of former states begin.
const ASIDE: &str = "before-restore-";

/// Form of the manifest.
const VERSION: u32 = 1;

/// Why a copy was not made or not put back. The operator acts on it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already.
    #[error("{} is there already; a backup is a directory of its own", .0.display())]
    Exists(PathBuf),
    /// The system refuses a file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no backup, or not whole.
    #[error("{} is no whole backup: {why}", path.display())]
    NotWhole {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What was copied: the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Form of this text.
    pub manifest: u32,
    /// Version of the program that made it.
    pub version: String,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Each file: bytes and SHA-256.
    pub files: BTreeMap<String, FileMade>,
}

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMade {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Copies the state in `data_dir` to `to`, which must not be there. The node may run.
///
/// # Errors
/// [`BackupError`]; nothing is left then.
pub fn make(data_dir: &Path, to: &Path, at: SystemTime) -> Result<Made, BackupError> {
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.symlink_metadata().is_ok() {
        fs::remove_dir_all(&unfinished).map_err(|source| fault(&unfinished, source))?;
    }
    let made = fill(data_dir, &unfinished, at).and_then(|made| {
        fs::rename(&unfinished, to).and_then(|()| sync_parent(to)).map_err(|source| fault(to, source))?;
        Ok(made)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    made
}

fn fill(data_dir: &Path, to: &Path, at: SystemTime) -> Result<Made, BackupError> {
    DirBuilder::new().mode(0o700).create(to).map_err(|source| fault(to, source))?;
    // The small files first: a key that is new when the database is copied is missed by nothing in it.
    let mut files = BTreeMap::new();
    for name in SMALL {
        let from = data_dir.join(name);
        if from.symlink_metadata().is_err() {
            continue;
        }
        copy(&from, &to.join(name))?;
        files.insert(name.to_owned(), hashed(&to.join(name))?);
    }
    let database = to.join(DATABASE);
    store::copy(&data_dir.join(DATABASE), &database)?;
    let synced = fs::set_permissions(&database, PermissionsExt::from_mode(0o600))
        .and_then(|()| File::open(&database)?.sync_all());
    synced.map_err(|source| fault(&database, source))?;
    files.insert(DATABASE.to_owned(), hashed(&database)?);
    let at = humantime::format_rfc3339_millis(at).to_string();
    let made = Made { manifest: VERSION, version: env!("CARGO_PKG_VERSION").into(), at, files };
    let text = serde_json::to_vec_pretty(&made).expect("texts always become JSON");
    let manifest = to.join(MANIFEST);
    write_private(&manifest, &text).map_err(|source| fault(&manifest, source))?;
    Ok(made)
}

/// Reads a copy's manifest and looks whether all is there as it was.
///
/// # Errors
/// `BackupError::NotWhole` and `File`.
pub fn check(from: &Path) -> Result<Made, BackupError> {
    let not_whole = |why: String| BackupError::NotWhole { path: from.to_owned(), why };
    let text = fs::read(from.join(MANIFEST)).map_err(|error| not_whole(format!("{MANIFEST}: {error}")))?;
    let made: Made = serde_json::from_slice(&text).map_err(|error| not_whole(format!("{MANIFEST}: {error}")))?;
    if made.manifest != VERSION {
        return Err(not_whole(format!("its manifest has form {}, this version reads {VERSION}", made.manifest)));
    }
    if !made.files.contains_key(DATABASE) {
        return Err(not_whole(format!("its manifest names no {DATABASE}")));
    }
    for (name, file) in &made.files {
        if name != DATABASE && !SMALL.contains(&name.as_str()) {
            return Err(not_whole(format!("its manifest names {name:?}, which is no file of a backup")));
        }
        let path = from.join(name);
        if hashed(&path).map_err(|error| not_whole(error.to_string()))? != *file {
            return Err(not_whole(format!("{name} is not as it was when the backup was made")));
        }
    }
    Ok(made)
}

/// Puts the files of a copy that was checked into a folder of the data directory, where it is made ready. What an earlier
/// restore that broke off has left there is removed.
///
/// # Errors
/// `BackupError::File`.
pub fn stage(made: &Made, from: &Path, data_dir: &Path) -> Result<PathBuf, BackupError> {
    let staged = data_dir.join(STAGED);
    if staged.symlink_metadata().is_ok() {
        fs::remove_dir_all(&staged).map_err(|source| fault(&staged, source))?;
    }
    DirBuilder::new().mode(0o700).create(&staged).map_err(|source| fault(&staged, source))?;
    for name in made.files.keys() {
        copy(&from.join(name), &staged.join(name))?;
    }
    Ok(staged)
}

/// Sets aside what stands in a data directory and puts in its place what was made ready. Gives the folder of the former,
/// where there was something. From the first move to the last the directory is marked, and no node starts in it.
///
/// # Errors
/// `BackupError::File`.
pub fn put_in_place(staged: &Path, data_dir: &Path, at: SystemTime) -> Result<Option<PathBuf>, BackupError> {
    let mark = data_dir.join(UNFINISHED);
    write_private(&mark, b"").map_err(|source| fault(&mark, source))?;
    let aside = set_aside(data_dir, at)?;
    for name in SMALL.iter().chain([&DATABASE]) {
        let (from, to) = (staged.join(name), data_dir.join(name));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(&to, error)),
            _ => {}
        }
    }
    let done = fs::remove_dir_all(staged)
        .and_then(|()| File::open(data_dir)?.sync_all())
        .and_then(|()| fs::remove_file(&mark))
        .and_then(|()| File::open(data_dir)?.sync_all());
    done.map_err(|source| fault(data_dir, source))?;
    Ok(aside)
}

/// The databases of states that were set aside in a data directory.
///
/// # Errors
/// `BackupError::File`.
pub fn set_aside_before(data_dir: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data_dir).map_err(|source| fault(data_dir, source))? {
        let path = entry.map_err(|source| fault(data_dir, source))?.path();
        let is_aside = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ASIDE));
        let database = path.join(DATABASE);
        if is_aside && database.symlink_metadata().is_ok() {
            found.push(database);
        }
    }
    Ok(found)
}

/// Moves what stands in a data directory into a folder of it. Gives the folder, where there was something.
fn set_aside(data_dir: &Path, at: SystemTime) -> Result<Option<PathBuf>, BackupError> {
    let log = [format!("{DATABASE}-wal"), format!("{DATABASE}-shm")];
    // The log before the database that it belongs to: alone that one is whole but for it, and it says so.
    let names = log.iter().map(String::as_str).chain([DATABASE]).chain(SMALL.iter().copied());
    let there: Vec<&str> = names.filter(|name| data_dir.join(name).symlink_metadata().is_ok()).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let at = humantime::format_rfc3339_millis(at).to_string().replace([':', '.'], "-");
    let aside = data_dir.join(format!("{ASIDE}{at}"));
    DirBuilder::new().mode(0o700).create(&aside).map_err(|source| fault(&aside, source))?;
    for name in there {
        let to = aside.join(name);
        fs::rename(data_dir.join(name), &to).map_err(|source| fault(&to, source))?;
    }
    Ok(Some(aside))
}

/// Whole or not there.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let unfinished = to.with_extension("new");
    let copied = fs::copy(from, &unfinished)
        .and_then(|_| fs::set_permissions(&unfinished, PermissionsExt::from_mode(0o600)))
        .and_then(|()| File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, to))
        .and_then(|()| sync_parent(to));
    copied.map_err(|source| fault(to, source))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn hashed(path: &Path) -> Result<FileMade, BackupError> {
    let read = || -> io::Result<FileMade> {
        let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
        let mut piece = vec![0; 1 << 16];
        loop {
            let length = file.read(&mut piece)?;
            if length == 0 {
                break;
            }
            hash.update(&piece[..length]);
            bytes += length as u64;
        }
        Ok(FileMade { bytes, sha256: hex::encode(hash.finalize()) })
    };
    read().map_err(|source| fault(path, source))
}

fn fault(path: &Path, source: io::Error) -> BackupError {
    BackupError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_copy_is_whole_and_what_is_changed_in_it_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("node.secret"), [1; 32]).unwrap();
        let database = rusqlite::Connection::open(data.join(DATABASE)).unwrap();
        database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        let to = folder.path().join("copy");
        let made = make(&data, &to, UNIX_EPOCH).unwrap();
        assert_eq!(check(&to).unwrap(), made);
        assert!(matches!(make(&data, &to, UNIX_EPOCH), Err(BackupError::Exists(_))));

        let staged = stage(&made, &to, &data).unwrap();
        let aside = put_in_place(&staged, &data, UNIX_EPOCH).unwrap().unwrap();
        assert!(aside.join("node.secret").exists() && !staged.exists() && !data.join(UNFINISHED).exists());
        assert_eq!(set_aside_before(&data).unwrap(), [aside.join(DATABASE)]);
        let again = rusqlite::Connection::open(data.join(DATABASE)).unwrap();
        assert_eq!(again.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);

        fs::write(to.join("node.secret"), [2; 32]).unwrap();
        assert!(check(&to).unwrap_err().to_string().contains("node.secret is not as it was"));
        fs::remove_file(to.join("node.secret")).unwrap();
        assert!(matches!(check(&to), Err(BackupError::NotWhole { .. })));
        assert!(matches!(check(&data), Err(BackupError::NotWhole { .. })));
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("copy");
        assert!(make(&folder.path().join("nothing"), &to, UNIX_EPOCH).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
