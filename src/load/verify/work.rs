//! What the tasks of one load share: the board, the verifications that are to be created, and the end.
//!
//! All of it runs on one thread, so there are no locks; no borrow of the board is held over an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::VerifyError;
use super::board::Board;
use crate::load::flood::timer::Timer;
use crate::load::losses::Losses;
use crate::load::pace::Pacer;
use crate::load::slab::Key;

/// How often verifications that have taken too long are looked for.
const SWEEP: Duration = Duration::from_millis(10);

/// A verification that is to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) key: Key,
    /// Its number in the load.
    pub(super) number: u64,
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Work {
    clock: fn() -> Instant,
    start: Cell<Instant>,
    board: RefCell<Board>,
    losses: Cell<Losses>,
    ready: RefCell<VecDeque<Job>>,
    /// One has become ready, or none does any more.
    arrived: Notify,
    is_over: Cell<bool>,
    /// One or more have ended.
    freed: Notify,
    refusal: RefCell<Option<VerifyError>>,
    refused: Notify,
}

impl Work {
    /// A load that is not under way yet.
    pub(super) fn new(clock: fn() -> Instant, board: Board) -> Self {
        Self {
            clock,
            start: Cell::new(clock()),
            board: RefCell::new(board),
            losses: Cell::default(),
            ready: RefCell::default(),
            arrived: Notify::new(),
            is_over: Cell::new(false),
            freed: Notify::new(),
            refusal: RefCell::new(None),
            refused: Notify::new(),
        }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        (self.clock)().saturating_duration_since(self.start.get())
    }

    /// Looks at the board or changes it, and wakes the pacer where a verification has ended meanwhile.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = self.board.borrow_mut();
        let before = board.open();
        let outcome = change(&mut board);
        if board.open() < before {
            self.freed.notify_one();
        }
        outcome
    }

    /// This machine has lost messages.
    pub(super) fn lose(&self, more: Losses) {
        let mut losses = self.losses.get();
        losses += more;
        self.losses.set(losses);
    }

    /// All messages that this machine has lost.
    pub(super) fn losses(&self) -> Losses {
        self.losses.get()
    }

    /// Gives up what has taken longer than the timeout, for as long as it is polled. A task of its own does so: others
    /// may wait for the peer.
    pub(super) async fn keep_time(&self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweep.tick().await;
            let now = self.now();
            self.with(|board| board.expire(now));
        }
    }

    /// The next verification to create, less those that have been given up while they waited; `None` once none comes
    /// any more.
    pub(super) async fn next(&self) -> Option<Job> {
        loop {
            while let Some(job) = self.first() {
                if self.with(|board| board.is_open(job.key)) {
                    return Some(job);
                }
            }
            if self.is_over.get() {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    fn first(&self) -> Option<Job> {
        self.ready.borrow_mut().pop_front()
    }

    /// Starts the load: verifications begin as the pacer has it, until the last of them has ended.
    ///
    /// # Errors
    /// The system's, where it gives no timer.
    pub(super) async fn pace(&self, mut pacer: Pacer) -> io::Result<()> {
        let mut timer = Timer::new()?;
        self.start.set((self.clock)());
        loop {
            let now = self.now();
            while let Some(due) = pacer.take(now, self.with(|board| board.open())) {
                if let Some(key) = self.with(|board| board.begin(due, now)) {
                    self.ready.borrow_mut().push_back(Job { key, number: due.call });
                    self.arrived.notify_one();
                }
            }
            if pacer.is_over(now) && self.with(|board| board.open()) == 0 {
                self.stop();
                return Ok(());
            }
            match pacer.wake() {
                Some(wake) => {
                    timer.arm(now, wake)?;
                    tokio::select! {
                        expired = timer.expired() => expired?,
                        () = self.freed.notified() => {}
                    }
                }
                None => self.freed.notified().await,
            }
            // A pacer that is always behind still lets the others run.
            tokio::task::yield_now().await;
        }
    }

    /// No verification is created from now on, and what still waits to be created has not begun.
    pub(super) fn stop(&self) {
        self.ready.borrow_mut().clear();
        self.with(Board::withdraw);
        self.is_over.set(true);
        self.arrived.notify_waiters();
    }

    /// Waits until none is in flight.
    pub(super) async fn drained(&self) {
        while self.with(|board| board.open()) > 0 {
            self.freed.notified().await;
        }
    }

    /// The load cannot go on.
    pub(super) fn refuse(&self, why: VerifyError) {
        self.refusal.borrow_mut().get_or_insert(why);
        self.refused.notify_one();
    }

    /// Waits until the load cannot go on, and tells why.
    pub(super) async fn refused(&self) -> VerifyError {
        loop {
            if let Some(why) = self.refusal.borrow_mut().take() {
                return why;
            }
            self.refused.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::load::pace::Due;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_was_given_up_while_it_waited_is_not_created() {
        let work = Work::new(clock, Board::new(DEADLINE, 0));
        let [given_up, open] = [0, 1].map(|number| begin(&work, number));
        work.with(|board| board.fail(given_up.key, "timeout", Duration::ZERO));
        assert_eq!(timeout(DEADLINE, work.next()).await.unwrap(), Some(open));
        work.stop();
        assert_eq!(timeout(DEADLINE, work.next()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_though_nobody_else_runs() {
        let work = Work::new(clock, Board::new(Duration::from_millis(1), 0));
        begin(&work, 0);
        let given_up = async {
            tokio::select! {
                () = work.keep_time() => {}
                () = work.drained() => {}
            }
        };
        timeout(DEADLINE, given_up).await.unwrap();
        let (tally, _) = work.with(Board::take);
        assert_eq!((tally.lost, tally.codes["create timeout"]), (1, 1));
    }

    /// One that waits to be created.
    fn begin(work: &Work, number: u64) -> Job {
        let due = Due { call: number, at: Duration::ZERO };
        let key = work.with(|board| board.begin(due, Duration::ZERO)).unwrap();
        let job = Job { key, number };
        work.ready.borrow_mut().push_back(job);
        job
    }

    #[allow(clippy::disallowed_methods, reason = "the clock that the command hands in")]
    fn clock() -> Instant {
        Instant::now()
    }
}
