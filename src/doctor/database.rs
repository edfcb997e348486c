//! The database: its version, its newest event, and whether `SQLite` finds it sound. Reads only, also while a node runs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;
use super::limits::size;
use crate::store::StoreError;
use crate::store::inspect::{Inspector, SCHEMA_VERSION, Soundness};

const CHECK: &str = "database";

/// Longest time that `SQLite` looks through the pages. A large database is looked through in part only.
const LOOK: Duration = Duration::from_secs(5);

/// What is found, and the time of the newest event.
pub(super) fn check(path: &Path) -> (Vec<Finding>, Option<SystemTime>) {
    let bytes = match std::fs::metadata(path) {
        Ok(file) => file.len(),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound || error.kind() == std::io::ErrorKind::NotADirectory =>
        {
            return (vec![Finding::ok(CHECK, "", "is not there yet; the first start makes it")], None);
        }
        Err(error) => return (vec![unreadable(&error.to_string())], None),
    };
    match look(path, bytes) {
        Ok((findings, newest)) => (findings, newest),
        Err(error) => (vec![unreadable(&error.to_string())], None),
    }
}

fn look(path: &Path, bytes: u64) -> Result<(Vec<Finding>, Option<SystemTime>), StoreError> {
    let inspector = Inspector::open(path)?;
    let version = inspector.version()?;
    let mut findings = vec![judge_version(version, bytes)];
    findings.push(judge_soundness(inspector.soundness(LOOK)?));
    let newest = if version > 0 { inspector.newest_event()? } else { None };
    Ok((findings, newest))
}

fn unreadable(why: &str) -> Finding {
    Finding::fail(CHECK, "", why).advise("run the doctor as the node's user; restore a backup if the file is damaged")
}

fn judge_version(version: i64, bytes: u64) -> Finding {
    let found = format!("schema version {version}, {}", size(bytes));
    match version.cmp(&SCHEMA_VERSION) {
        std::cmp::Ordering::Greater => Finding::fail(CHECK, "schema", found)
            .advise(format!("a later ringproof wrote it; this one knows versions up to {SCHEMA_VERSION}")),
        std::cmp::Ordering::Less => {
            Finding::ok(CHECK, "schema", format!("{found}; the next start brings it to {SCHEMA_VERSION}"))
        }
        std::cmp::Ordering::Equal => Finding::ok(CHECK, "schema", found),
    }
}

fn judge_soundness(soundness: Soundness) -> Finding {
    match soundness {
        Soundness::Sound => Finding::ok(CHECK, "pages", "sound"),
        Soundness::Unfinished => {
            Finding::ok(CHECK, "pages", format!("nothing wrong within {} s; not looked through", LOOK.as_secs()))
        }
        Soundness::Damaged(first) => Finding::fail(CHECK, "pages", first)
            .advise("stop the node, keep a copy, restore a backup; look at the disk"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_newer_schema_fails_and_an_older_one_does_not() {
        assert_eq!(judge_version(SCHEMA_VERSION + 1, 0).level, Level::Fail);
        assert_eq!(judge_version(SCHEMA_VERSION, 0).level, Level::Ok);
        assert!(judge_version(SCHEMA_VERSION - 1, 0).found.contains("the next start"));
    }

    #[test]
    fn damage_fails_and_a_look_that_is_cut_short_does_not() {
        assert_eq!(judge_soundness(Soundness::Sound).level, Level::Ok);
        assert_eq!(judge_soundness(Soundness::Unfinished).level, Level::Ok);
        assert_eq!(judge_soundness(Soundness::Damaged("row 1 missing".to_owned())).level, Level::Fail);
    }

    #[test]
    fn a_file_that_is_no_database_fails_and_none_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ringproof.db");
        assert_eq!(check(&path).0[0].level, Level::Ok);
        std::fs::write(&path, "no database ".repeat(500)).unwrap();
        assert_eq!(check(&path).0[0].level, Level::Fail);
    }
}
