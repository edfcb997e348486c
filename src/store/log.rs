//! Moving what is committed from the write-ahead log into the database, beside the writer.
//!
//! A commit that had to do this would keep everybody behind it waiting for thousands of pages. So another thread moves
//! them while commits go on; then the writer moves what has come meanwhile, which is little. Only when all of it is in
//! the database does `SQLite` begin the log anew.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tracing::debug;

use super::schema;

/// Pages in the log from which on a store has them moved: 16 MiB, so that a page that changes often is seldom moved.
pub const PAGES: u32 = 4_000;

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
}

impl Log {
    /// Starts the thread that moves pages, whenever there are `most` or more.
    pub fn start(path: &Path, most: u32) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let (path, done) = (path.to_owned(), Arc::clone(&moved));
        let thread =
            thread::Builder::new().name("store-checkpoint".into()).spawn(move || serve(&path, &asked, &done))?;
        Ok(Self {
            thread: Some(thread),
            ask: Some(ask),
            moved,
            pages: Arc::default(),
            seen: 0,
            most,
            ask_at: most,
            under_way: false,
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
        }
        self.seen = pages;
        if self.under_way {
            if self.moved.swap(false, Ordering::Acquire) {
                self.under_way = false;
                checkpoint(connection);
            }
        } else if pages >= self.ask_at {
            // A log that readers have kept from beginning anew is looked at again when it has grown as much once more.
            self.ask_at = pages.saturating_add(self.most);
            self.under_way = self.ask.as_ref().is_some_and(|ask| ask.try_send(()).is_ok());
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

fn serve(path: &Path, asked: &Receiver<()>, moved: &AtomicBool) {
    while asked.recv().is_ok() {
        // A connection for each time, so that none outlives a file that was replaced.
        match schema::open_reader(path) {
            Ok(connection) => checkpoint(&connection),
            Err(fault) => debug!(%fault, "the write-ahead log is left to the writer"),
        }
        moved.store(true, Ordering::Release);
    }
}

/// Moves what no reader is in the way of. What fails here is tried again with the next pages.
fn checkpoint(connection: &Connection) {
    if let Err(fault) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        debug!(%fault, "the write-ahead log is not moved");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::tests::Folder;

    const DEADLINE: Duration = Duration::from_mins(1);

    #[test]
    fn the_log_begins_anew_and_all_rows_stay() {
        let folder = Folder::new();
        let mut connection = schema::open_writer(&folder.database()).unwrap();
        let mut log = Log::start(&folder.database(), 50).unwrap();
        log.watch(&mut connection).unwrap();
        let (mut rows, mut anew, mut before) = (0_u32, 0, 0);
        let begun = crate::engine::clock::instant();
        while anew < 3 {
            assert!(begun.elapsed() < DEADLINE, "{anew} times in {rows} commits");
            connection.execute("INSERT INTO space_probe VALUES (zeroblob(4000))", []).unwrap();
            rows += 1;
            let pages = log.pages.load(Ordering::Relaxed);
            anew += u32::from(pages < before);
            before = pages;
            log.tend(&connection);
        }
        let read = || connection.query_row("SELECT count(*) FROM space_probe", [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!(read(), rows);
        log.stop();
        drop(connection);
        let other = schema::open_reader(&folder.database()).unwrap();
        assert_eq!(other.query_row("SELECT count(*) FROM space_probe", [], |row| row.get::<_, u32>(0)).unwrap(), rows);
    }

    #[test]
    fn a_reader_that_stays_keeps_the_log_and_loses_nothing() {
        let folder = Folder::new();
        let mut connection = schema::open_writer(&folder.database()).unwrap();
        let mut log = Log::start(&folder.database(), 20).unwrap();
        log.watch(&mut connection).unwrap();
        let reader = schema::open_reader(&folder.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM space_probe").unwrap();
        for _ in 0..200 {
            connection.execute("INSERT INTO space_probe VALUES (zeroblob(4000))", []).unwrap();
            log.tend(&connection);
        }
        assert!(log.pages.load(Ordering::Relaxed) > 200, "nothing that the reader may need is written over");
        assert_eq!(reader.query_row("SELECT count(*) FROM space_probe", [], |row| row.get::<_, u32>(0)).unwrap(), 0);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(reader.query_row("SELECT count(*) FROM space_probe", [], |row| row.get::<_, u32>(0)).unwrap(), 200);
    }
}
