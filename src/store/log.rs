//! Moving what is committed from the write-ahead log into the database, beside the writer.
//!
//! A commit that had to do this would keep everybody behind it waiting for thousands of pages. So another thread moves
//! them and has them written to the disk while commits go on; then the writer moves what has come meanwhile, which is
//! little. Only when all of it is in the database, and nobody reads the log, does `SQLite` begin it anew.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tracing::{debug, warn};

use super::schema;

/// Pages in the log from which on a store has them moved: 16 MiB, so that a page that changes often is seldom moved.
pub const PAGES: u32 = 4_000;

/// Commits after which the writer moves the rest once more where the log has not begun anew: somebody read it just
/// then.
const FINISHES: u32 = 8;

/// The writer's side.
pub struct Log {
    thread: Option<JoinHandle<()>>,
    ask: Option<SyncSender<()>>,
    moved: Arc<AtomicBool>,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    seen: u32,
    /// Pages from which on they are moved.
    most: u32,
    ask_at: u32,
    under_way: bool,
    /// How often the writer may still move the rest.
    finishes: u32,
}

impl Log {
    /// Starts the thread that moves pages, whenever there are `most` or more. `database` is the file at `path`: whoever
    /// opened it keeps it open as long as there is a connection, for closing it would end the process's locks on it.
    pub fn start(path: &Path, database: Arc<File>, most: u32) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let (path, done) = (path.to_owned(), Arc::clone(&moved));
        let thread = thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || serve(&path, &database, &asked, &done))?;
        Ok(Self {
            thread: Some(thread),
            ask: Some(ask),
            moved,
            pages: Arc::default(),
            seen: 0,
            most,
            ask_at: most,
            under_way: false,
            finishes: 0,
        })
    }

    /// Has the writer's connection count the pages of its log, and no commit move them.
    pub fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut _, count: i32| {
            pages.store(count.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// What is to be done for the log between two commits.
    pub fn tend(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.seen {
            self.ask_at = self.most;
            self.finishes = 0;
        }
        let grown = pages > self.seen;
        self.seen = pages;
        if self.under_way {
            let is_gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if self.moved.swap(false, Ordering::Acquire) || is_gone {
                self.under_way = false;
                self.finishes = FINISHES;
            }
        } else if pages >= self.ask_at {
            // A log that readers have kept from beginning anew is looked at again when it has grown as much once more.
            self.ask_at = pages.saturating_add(self.most);
            self.under_way = self.ask.as_ref().is_some_and(|ask| ask.try_send(()).is_ok());
            if !self.under_way {
                // Nobody is there to ask.
                self.finishes = FINISHES;
            }
        }
        if self.finishes == FINISHES || self.finishes > 0 && grown {
            self.finishes -= 1;
            if let Err(fault) = checkpoint(connection) {
                debug!(%fault, "the rest of the write-ahead log is not moved");
            }
        }
    }

    /// Ends the thread, after what it is at.
    pub fn stop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so, and the log is whole without it.
            let _ = thread.join();
        }
    }
}

fn serve(path: &Path, database: &File, asked: &Receiver<()>, moved: &AtomicBool) {
    while asked.recv().is_ok() {
        // A connection for each time, so that none outlives a file that was replaced.
        let done = schema::open_reader(path).and_then(|connection| Ok(checkpoint(&connection)?));
        if let Err(fault) = done {
            warn!(%fault, "the write-ahead log is left to the writer");
        }
        // SQLite does this only where it has moved everything, which it has not while commits go on. It would all be
        // left to the writer's turn.
        if let Err(fault) = database.sync_data() {
            warn!(%fault, "what was moved out of the write-ahead log is not on disk yet");
        }
        moved.store(true, Ordering::Release);
    }
}

/// Moves what no reader is in the way of.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::tests::Folder;

    const DEADLINE: Duration = Duration::from_mins(1);

    /// A database whose log is moved from so many pages on.
    fn watched(most: u32) -> (Folder, Connection, Log) {
        let folder = Folder::new();
        let mut connection = schema::open_writer(&folder.database()).unwrap();
        let file = Arc::new(File::open(folder.database()).unwrap());
        let log = Log::start(&folder.database(), file, most).unwrap();
        log.watch(&mut connection).unwrap();
        (folder, connection, log)
    }

    fn insert(connection: &Connection) {
        connection.execute("INSERT INTO space_probe VALUES (zeroblob(4000))", []).unwrap();
    }

    fn rows(connection: &Connection) -> u32 {
        connection.query_row("SELECT count(*) FROM space_probe", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_log_begins_anew_and_all_rows_stay() {
        let (folder, connection, mut log) = watched(50);
        let (mut commits, mut anew, mut before) = (0, 0, 0);
        let begun = crate::engine::clock::instant();
        while anew < 3 {
            assert!(begun.elapsed() < DEADLINE, "{anew} times in {commits} commits");
            insert(&connection);
            commits += 1;
            let pages = log.pages.load(Ordering::Relaxed);
            anew += u32::from(pages < before);
            before = pages;
            log.tend(&connection);
        }
        assert_eq!(rows(&connection), commits);
        log.stop();
        drop(connection);
        assert_eq!(rows(&schema::open_reader(&folder.database()).unwrap()), commits);
    }

    #[test]
    fn without_its_thread_the_writer_moves_all_itself() {
        let (_folder, connection, mut log) = watched(50);
        log.stop();
        for _ in 0..200 {
            insert(&connection);
            log.tend(&connection);
        }
        assert!(log.pages.load(Ordering::Relaxed) < 100, "it has begun anew");
        assert_eq!(rows(&connection), 200);
    }

    #[test]
    fn a_reader_that_stays_keeps_the_log_and_loses_nothing() {
        let (folder, connection, mut log) = watched(20);
        let reader = schema::open_reader(&folder.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM space_probe").unwrap();
        for _ in 0..200 {
            insert(&connection);
            log.tend(&connection);
        }
        assert!(log.pages.load(Ordering::Relaxed) > 200, "nothing that the reader may need is written over");
        assert_eq!(rows(&reader), 0);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(rows(&reader), 200);
    }
}
