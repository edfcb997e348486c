//! Verifications on their way into a database: by the store's own step, many in one commit.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use serde::{Deserialize, Serialize};

use ringproof::engine::clock::instant;
use ringproof::store::Store;

use crate::node::{self, Node};
use crate::rows::Rows;

/// Threads that begin verifications, as many as the machine has processors at most.
const PRODUCERS: usize = 4;

/// Steps of a producer that wait for their commit: enough for a whole transaction, and few of the 65,536 that the
/// store takes.
const IN_FLIGHT: usize = 4_096;

/// How a database was filled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    /// Verifications in it.
    pub rows: u64,
    /// Until the last was durable.
    pub seconds: f64,
    /// Size of the file with its log moved in.
    pub database_bytes: u64,
}

/// Writes all `rows` into the empty `folder`.
pub fn fill(folder: &Path, rows: Rows) -> Filled {
    let node = Node::open(folder);
    let producers = thread::available_parallelism().map_or(1, NonZero::get).min(PRODUCERS);
    let begun = instant();
    thread::scope(|scope| {
        for first in (0..rows.total()).take(producers) {
            let store = &node.store;
            scope.spawn(move || produce(store, rows, (first..rows.total()).step_by(producers)));
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    node.store.close();
    let file = fs::metadata(node::database(folder)).expect("the database is there");
    Filled { rows: rows.total(), seconds, database_bytes: file.len() }
}

fn produce(store: &Store, rows: Rows, places: impl Iterator<Item = u64>) {
    let (done, finished) = mpsc::channel();
    let wait = || assert_eq!(finished.recv(), Ok(true), "a step was not stored");
    let mut in_flight = 0;
    for place in places {
        if in_flight == IN_FLIGHT {
            wait();
            in_flight -= 1;
        }
        let done = done.clone();
        store.create(rows.create(place), move |result| {
            // A producer that has failed listens no more.
            let _ = done.send(result.is_ok());
        });
        in_flight += 1;
    }
    drop(done);
    (0..in_flight).for_each(|_| wait());
}
