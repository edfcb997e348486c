//! Windows that end in the same second: how long until all have ended, and what somebody feels who calls meanwhile.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use ringproof::engine::clock::instant;
use ringproof::matcher::verification::Status;

use crate::calls::Caller;
use crate::index::{filled, look_up};
use crate::node::{Node, pass_to};
use crate::rows::{ALL_OVER, APPLICATION, BYSTANDERS, Pair, Rows, mixed, stranger, waited_for};

/// Most windows that are taken at once, as the application takes them.
const CHUNK: usize = 1_000;

/// Look-ups before anything ends, for comparison.
const CALM: u64 = 1_000_000;

/// How often it is seen whether all are stored.
const POLL: Duration = Duration::from_millis(1);

/// When that is given up.
const PATIENCE: Duration = Duration::from_hours(1);

/// The longest look-up that is told from longer ones.
const LONGEST: Duration = Duration::from_mins(1);

/// How windows ended together.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended {
    /// How many.
    pub windows: u64,
    /// From the moment at which they are over to the last of them.
    pub seconds: f64,
    /// Look-ups before.
    pub before: Waits,
    /// Look-ups meanwhile.
    pub meanwhile: Waits,
}

/// Look-ups one after the other on a thread of its own, in nanoseconds, with what the clock adds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waits {
    /// How many.
    pub look_ups: u64,
    /// Half took no longer.
    pub median: u64,
    /// One in a thousand took longer.
    pub p999: u64,
    /// None took longer.
    pub longest: u64,
}

/// Has the index mark all as ending, chunk behind chunk without a commit between. The look-ups are of pairs that end,
/// of others that stay pending and of none, in turn; a look-up itself ends nothing.
pub fn of_the_index(rows: Rows) -> Ended {
    let (matcher, _) = filled(rows);
    let pair = |number: u64| match number % 3 {
        0 => waited_for(mixed(number) % rows.count()),
        1 => bystander(rows, number),
        _ => stranger(number),
    };
    let find = |pair| {
        black_box(look_up(&matcher, pair));
    };
    let mark = || {
        let begun = instant();
        let mut ended = 0;
        loop {
            let expired = matcher.expire(ALL_OVER, CHUNK);
            if expired.looked_at == 0 {
                return (ended, begun.elapsed());
            }
            ended += expired.ended.len() as u64;
        }
    };
    let ((ended, time), waits) = beside(pair, find, mark);
    assert_eq!(ended, rows.count(), "every window that is over has ended");
    Ended::new(rows, time, waits)
}

/// Has the application end all, each chunk stored before the next is taken. The calls are for verifications that stay
/// pending and for none, in turn.
pub fn through_the_store(folder: &Path, rows: Rows) -> Ended {
    let node = Node::open(folder);
    let restored = node.verify.recover().expect("the database can be read");
    assert_eq!(restored.pending as u64, rows.total(), "all that was written is pending");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a thread");
    let stored = node.metrics.verifications.with_label_values(&[APPLICATION, Status::Expired.as_str()]);
    let mut caller = Caller::default();
    let pair = |number: u64| if number.is_multiple_of(2) { bystander(rows, number) } else { stranger(number) };
    let call = |pair| {
        black_box(caller.call(&node.verify, pair));
    };
    let expiring = node.verify.clone();
    let end = || {
        pass_to(ALL_OVER);
        let begun = instant();
        runtime.block_on(async {
            let (stop, stopped) = watch::channel(false);
            let running = tokio::spawn(async move { expiring.run_expiry(stopped).await });
            let all_stored = async {
                while stored.get() < rows.count() {
                    sleep(POLL).await;
                }
            };
            // Where the time was up, the count tells.
            let _ = timeout(PATIENCE, all_stored).await;
            let time = begun.elapsed();
            let _ = stop.send(true);
            let _ = running.await;
            time
        })
    };
    let (time, waits) = beside(pair, call, end);
    assert_eq!(stored.get(), rows.count(), "every window that is over has ended");
    Ended::new(rows, time, waits)
}

impl Ended {
    fn new(rows: Rows, time: Duration, [before, meanwhile]: [Waits; 2]) -> Self {
        Self { windows: rows.count(), seconds: time.as_secs_f64(), before, meanwhile }
    }
}

impl Waits {
    fn of(times: &Histogram<u64>) -> Self {
        Self {
            look_ups: times.len(),
            median: times.value_at_quantile(0.5),
            p999: times.value_at_quantile(0.999),
            longest: times.max(),
        }
    }
}

/// Runs `work`, which must not fail, beside a thread that looks up without a pause: the `pair` of each number, which is
/// found out before the clock runs. Gives what `work` gave, and the look-ups before and meanwhile.
fn beside<T>(
    pair: impl Fn(u64) -> Pair + Send,
    mut look_up: impl FnMut(Pair) + Send,
    work: impl FnOnce() -> T,
) -> (T, [Waits; 2]) {
    let is_over = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let is_over = &is_over;
        let looking = scope.spawn(move || {
            let mut number = 0;
            let mut look = |times: &mut Histogram<u64>| {
                number += 1;
                let pair = pair(number);
                let begun = instant();
                look_up(pair);
                times.saturating_record(nanoseconds(begun.elapsed()));
            };
            let (mut before, mut meanwhile) = (times(), times());
            (0..CALM).for_each(|_| look(&mut before));
            tell.send(()).expect("the other thread waits for it");
            while !is_over.load(Ordering::Relaxed) {
                look(&mut meanwhile);
            }
            [Waits::of(&before), Waits::of(&meanwhile)]
        });
        told.recv().expect("the other thread looks up");
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        (result, looking.join().expect("the other thread looks up"))
    })
}

/// A verification that stays pending.
fn bystander(rows: Rows, number: u64) -> Pair {
    waited_for(rows.count() + mixed(number) % BYSTANDERS)
}

fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanoseconds(LONGEST), 3).expect("the bounds are fixed and fit")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
