//! Figures of the disk and the database that nobody counts on the way: read now and then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::store::Store;
use crate::telemetry::machine;
use crate::telemetry::metrics::Metrics;

/// How often. A scrape never waits for a disk: it gets the last figures.
const TICK: Duration = Duration::from_secs(5);

/// Keeps the gauges of the store's files and tables until `stop` turns true.
pub async fn keep(store: Store, database: PathBuf, metrics: Metrics, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = async {
        loop {
            tick.tick().await;
            let (path, kept) = (database.clone(), metrics.clone());
            // A disk that hangs holds this task alone.
            let _ = tokio::task::spawn_blocking(move || look_at_files(&path, &kept)).await;
            match store.idempotency_answers().await {
                Ok(answers) => metrics.store_idempotency.set(signed(answers)),
                Err(error) => tracing::debug!(%error, "idempotency answers cannot be counted"),
            }
        }
    };
    tokio::select! {
        () = look => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

fn look_at_files(database: &Path, metrics: &Metrics) {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    for (name, path) in [("database", database), ("wal", Path::new(&log))] {
        // There is no log until something is written.
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        metrics.store_file_bytes.with_label_values(&[name]).set(signed(bytes));
    }
    if let Some(errors) = machine::udp_receive_buffer_errors() {
        let known = metrics.udp_receive_buffer_errors.get();
        metrics.udp_receive_buffer_errors.inc_by(errors.saturating_sub(known));
    }
    if let Ok(room) = machine::room(database) {
        metrics.store_disk_free.set(signed(room.bytes));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
