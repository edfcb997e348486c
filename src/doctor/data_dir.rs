//! The data directory: whose it is, what may be written there, and how fast the disk confirms it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;

use super::limits::size;
use super::{Clocks, Finding};
use crate::telemetry::machine::{self, Room};

const CHECK: &str = "data_dir";
const SYNC: &str = "disk_sync";

/// Appends that are measured, and the bytes of each: what a small commit writes.
const APPENDS: usize = 50;
const APPEND: usize = 4096;
/// Measuring ends after this, however few appends were made.
const LONGEST: Duration = Duration::from_secs(3);
/// A commit waits for the disk this often; above, calls feel it.
const SLOW: Duration = Duration::from_millis(10);

/// Room below which the operator should act, and below which the node can't work.
const LITTLE: u64 = 1 << 30;
const NONE: u64 = 64 << 20;
const FEW_FILES: u64 = 1000;

/// What statfs(2) calls a file system in memory.
const TMPFS: u64 = 0x0102_1994;

/// Whether a node works in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Its lock is held.
    Running,
    /// Nobody holds it.
    Stopped,
    /// The lock cannot be looked at.
    Unknown,
}

/// Looks at the lock. Where it is free it is held for this moment, shared, so that a second doctor is no node.
pub(super) fn node_state(data_dir: &Path) -> NodeState {
    let lock = match File::open(data_dir.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return NodeState::Stopped,
        Err(_) => return NodeState::Unknown,
    };
    match lock.try_lock_shared() {
        Ok(()) => NodeState::Stopped,
        Err(TryLockError::WouldBlock) => NodeState::Running,
        Err(TryLockError::Error(_)) => NodeState::Unknown,
    }
}

pub(super) fn check(data_dir: &Path, state: NodeState, clocks: Clocks) -> Vec<Finding> {
    let subject = data_dir.display().to_string();
    let metadata = match std::fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(data_dir, subject),
        Err(error) => {
            return vec![
                Finding::fail(CHECK, subject, error.to_string()).advise("change data_dir, or what is in its way"),
            ];
        }
    };
    if !metadata.is_dir() {
        return vec![Finding::fail(CHECK, subject, "is no directory").advise("change data_dir, or what is in its way")];
    }
    let mut findings =
        vec![judge_owner(subject.clone(), metadata.mode(), metadata.uid(), rustix::process::geteuid().as_raw(), state)];
    if let Ok(room) = machine::room(data_dir) {
        findings.push(judge_room(room));
    }
    if rustix::fs::statfs(data_dir).is_ok_and(|disk| u64::try_from(disk.f_type).is_ok_and(|kind| kind == TMPFS)) {
        findings.push(
            Finding::warn(CHECK, subject.clone(), "is in memory (tmpfs): nothing outlives the machine")
                .advise("move data_dir to a local disk"),
        );
    }
    match scratch(data_dir).and_then(|file| time_appends(file, clocks)) {
        Ok(times) => findings.push(judge_sync(times)),
        Err(error) => findings.push(
            Finding::fail(CHECK, subject, format!("a file in it cannot be written: {error}"))
                .advise("run the doctor as the node's user; give that user the directory"),
        ),
    }
    findings
}

/// There is none yet: whether it can be made.
fn absent(data_dir: &Path, subject: String) -> Vec<Finding> {
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let parent = whole.ancestors().skip(1).find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    if !parent.is_dir() || rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let found = format!("is not there and cannot be made in {}", parent.display());
        return vec![Finding::fail(CHECK, subject, found).advise("make it, or give the node's user its parent")];
    }
    let mut findings = vec![Finding::ok(CHECK, subject, "is not there yet; the first start makes it")];
    if let Ok(room) = machine::room(parent) {
        findings.push(judge_room(room));
    }
    findings.push(Finding::ok(SYNC, "", "skipped: there is no data_dir yet"));
    findings
}

fn judge_owner(subject: String, mode: u32, owner: u32, user: u32, state: NodeState) -> Finding {
    let node = if state == NodeState::Running { ", a node works in it" } else { "" };
    let found = format!("mode {:04o}, user {owner}{node}", mode & 0o7777);
    if owner != user {
        return Finding::warn(CHECK, subject, format!("{found}; the doctor runs as user {user}"))
            .advise("run the doctor as the node's user, what it finds may differ");
    }
    if mode & 0o077 != 0 {
        return Finding::warn(CHECK, subject, found).advise("others may look into it: chmod 700");
    }
    Finding::ok(CHECK, subject, found)
}

fn judge_room(room: Room) -> Finding {
    const ROOM: &str = "disk_room";
    let files = room.files.map_or_else(String::new, |files| format!(", {files} files"));
    let found = format!("{}{files}", size(room.bytes));
    if room.bytes < NONE || room.files == Some(0) {
        return Finding::fail(ROOM, "", found).advise("without room every creation and matched call gets 503");
    }
    if room.bytes < LITTLE || room.files.is_some_and(|files| files < FEW_FILES) {
        return Finding::warn(ROOM, "", found).advise("make room, or shorten retention.verifications");
    }
    Finding::ok(ROOM, "", found)
}

/// A file that has no name any more, so that nothing is left of it whatever happens.
fn scratch(data_dir: &Path) -> io::Result<File> {
    let path = data_dir.join(format!("doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn time_appends(mut file: File, clocks: Clocks) -> io::Result<Vec<Duration>> {
    let bytes = [0x5a; APPEND];
    let began = (clocks.instant)();
    let mut times = Vec::with_capacity(APPENDS);
    let mut before = began;
    while times.len() < APPENDS && before.duration_since(began) < LONGEST {
        file.write_all(&bytes)?;
        file.sync_data()?;
        let now = (clocks.instant)();
        times.push(now.duration_since(before));
        before = now;
    }
    Ok(times)
}

fn judge_sync(mut times: Vec<Duration>) -> Finding {
    times.sort_unstable();
    let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) else {
        return Finding::warn(SYNC, "", "not measured");
    };
    let millis = |time: &Duration| time.as_secs_f64() * 1000.0;
    let found = format!("median {:.2} ms, worst {:.2} ms of {}", millis(median), millis(worst), times.len());
    if *median > SLOW {
        return Finding::warn(SYNC, "", found)
            .advise("each matched call waits for one: a local SSD confirms within a millisecond or two");
    }
    Finding::ok(SYNC, "", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const CLOCKS: Clocks = Clocks { utc: crate::engine::clock::utc, instant: crate::engine::clock::instant };

    #[test]
    fn owner_and_mode_are_judged() {
        let judge = |mode, owner, user| judge_owner("d".to_owned(), mode, owner, user, NodeState::Stopped).level;
        assert_eq!(judge(0o40_700, 5, 5), Level::Ok);
        assert_eq!(judge(0o40_750, 5, 5), Level::Warn);
        assert_eq!(judge(0o40_700, 5, 0), Level::Warn);
    }

    #[test]
    fn room_for_bytes_and_for_files_is_judged() {
        let judge = |bytes, files| judge_room(Room { bytes, files }).level;
        assert_eq!(judge(LITTLE, None), Level::Ok);
        assert_eq!(judge(LITTLE, Some(FEW_FILES)), Level::Ok);
        assert_eq!(judge(LITTLE - 1, None), Level::Warn);
        assert_eq!(judge(LITTLE, Some(FEW_FILES - 1)), Level::Warn);
        assert_eq!(judge(NONE - 1, None), Level::Fail);
        assert_eq!(judge(LITTLE, Some(0)), Level::Fail);
    }

    #[test]
    fn a_slow_disk_is_judged_by_its_median() {
        let times = |median: u64| vec![Duration::from_millis(900), Duration::ZERO, Duration::from_millis(median)];
        let fast = judge_sync(times(10));
        assert_eq!((fast.level, fast.found.as_str()), (Level::Ok, "median 10.00 ms, worst 900.00 ms of 3"));
        assert_eq!(judge_sync(times(11)).level, Level::Warn);
        assert_eq!(judge_sync(Vec::new()).level, Level::Warn);
    }

    #[test]
    fn a_directory_is_measured_and_nothing_is_left_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let findings = check(folder.path(), NodeState::Stopped, CLOCKS);
        assert!(
            findings.iter().any(|finding| finding.check == SYNC && finding.found.contains("median")),
            "{findings:?}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_can_be_made_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let level = |path: &Path| check(path, NodeState::Stopped, CLOCKS)[0].level;
        assert_eq!(level(&folder.path().join("a/b")), Level::Ok);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(level(&file), Level::Fail);
        assert_eq!(level(&file.join("data")), Level::Fail);
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn the_lock_tells_whether_a_node_runs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(node_state(folder.path()), NodeState::Stopped);
        let lock = File::create(folder.path().join("lock")).unwrap();
        assert_eq!(node_state(folder.path()), NodeState::Stopped);
        lock.try_lock().unwrap();
        assert_eq!(node_state(folder.path()), NodeState::Running);
    }
}
