//! The loop of one connection: a few messages a turn, their answers, and those of its calls whose commit is done.
//!
//! Answers go back on the connection that their requests came on, and nowhere else (RFC 3261 18.2.2): this node opens
//! no connection. Where it is gone before an answer, the answer is lost and counted; a verification that the call
//! proved stands, and a redial meets the refusal. Invariant: when the loop has ended, none of its calls waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, sleep_until};

use super::clock;
use super::sip_answer::{Arrival, SipShared, Write};
use super::sip_worker::LAST_ANSWERS;
use super::waiting::{Owner, PATIENCE};
use crate::matcher::boot_time::BootTime;
use crate::sip::framing::FrameError;
use crate::sip::message::Scanner;
use crate::sip::transaction::key::TransactionKey;
use crate::sip::uas::response::Status;
use crate::transport::tcp::{CloseReason, Connection, Piece};
use crate::verify::claims::{MAX_WAITING, Outcome};

/// Messages read, or outcomes answered, before other connections have their turn.
const TURN: usize = 32;

/// One connection's loop.
pub struct SipConnection {
    shared: Arc<SipShared>,
    connection: Connection,
    /// Made with the first call that waits: most connections never have one.
    outcomes: Option<Outcomes>,
    /// Its calls that wait, oldest first.
    waiting: VecDeque<(BootTime, u128)>,
}

/// How waits end: the end that is told, and the one that hears it.
struct Outcomes {
    tell: mpsc::Sender<(u128, Outcome)>,
    told: mpsc::Receiver<(u128, Outcome)>,
}

impl SipConnection {
    /// Prepares the loop of `connection`.
    #[must_use]
    pub fn new(shared: Arc<SipShared>, connection: Connection) -> Self {
        Self { shared, connection, outcomes: None, waiting: VecDeque::new() }
    }

    /// Reads and answers until the connection ends or `stop` turns true. Tells why it ended.
    pub async fn run(&mut self, stop: watch::Receiver<bool>) -> CloseReason {
        let reason = self.serve(stop).await;
        // A peer that has said all it will may still listen (RFC 9293 3.6).
        if matches!(reason, CloseReason::BadFraming | CloseReason::Peer | CloseReason::Stop | CloseReason::TooLarge) {
            self.last_answers().await;
        }
        // What still waits finds nobody to tell any more.
        for (_, ticket) in &self.waiting {
            self.shared.waiting.take(TransactionKey(*ticket));
        }
        let unsent = match reason {
            CloseReason::Lost => self.connection.unsent(),
            _ => self.connection.close().await,
        };
        self.shared.count_unsent(self.waiting.len() + unsent);
        self.waiting.clear();
        reason
    }

    async fn serve(&mut self, mut stop: watch::Receiver<bool>) -> CloseReason {
        loop {
            // What the peer does not take keeps it from getting more, so that nothing piles up.
            let has_room = self.connection.has_room();
            let oldest = self.oldest();
            let worked = tokio::select! {
                received = self.connection.receive() => received.and_then(|()| self.receive()),
                first = outcome(&mut self.outcomes), if has_room => self.finish(first),
                () = wait_until(oldest), if has_room => self.give_up(),
                _ = stop.wait_for(|stop| *stop) => Err(CloseReason::Stop),
            };
            if let Err(reason) = worked {
                return reason;
            }
            if self.connection.buffers().0.is_fresh() {
                yield_now().await;
            } else {
                consume_budget().await;
            }
        }
    }

    /// One turn of messages.
    fn receive(&mut self) -> Result<(), CloseReason> {
        let flow = self.connection.flow();
        // The trunk may have gone since the connection came.
        if !self.shared.knows(flow.remote) {
            return Err(CloseReason::UnknownSource);
        }
        let (now, utc, instant) = (clock::boot(), clock::utc(), clock::instant());
        let arrival = Arrival { flow, owner: Owner::Connection, utc, now, instant };
        let mut scanner = Scanner::default();
        let (input, output) = self.connection.buffers();
        let mut left = TURN;
        let fault = loop {
            if left == 0 || !output.has_room() {
                break None;
            }
            left -= 1;
            match input.take() {
                Ok(None) => break None,
                Ok(Some(Piece::Ping)) => output.pong(),
                Ok(Some(Piece::Message(bytes))) => {
                    let answer = |_, write: Write<'_>| output.push(write);
                    let outcomes = &mut self.outcomes;
                    let tell = || outcomes.get_or_insert_with(Outcomes::new).tell.clone();
                    let ticket = self.shared.receive(&mut scanner, bytes, arrival, tell, answer);
                    self.waiting.extend(ticket.map(|ticket| (now, ticket)));
                }
                Err(error) => break Some(error),
            }
        };
        let reason = fault.map(|error| {
            let (status, reason) = match error {
                FrameError::NotSip => return CloseReason::BadFraming,
                FrameError::NoLength | FrameError::Length => (Status::BadRequest, CloseReason::BadFraming),
                FrameError::TooLarge => (Status::MessageTooLarge, CloseReason::TooLarge),
            };
            let answer = |_, write: Write<'_>| output.push(write);
            self.shared.refuse(&mut scanner, input.rest(), flow, status, answer);
            reason
        });
        self.connection.settle()?;
        reason.map_or(Ok(()), Err)
    }

    /// Answers calls whose wait is over, as many as have gathered and a turn takes.
    fn finish(&mut self, first: (u128, Outcome)) -> Result<(), CloseReason> {
        let now = clock::boot();
        let mut scanner = Scanner::default();
        let (mut ended, mut left) = (first, TURN);
        loop {
            let (ticket, outcome) = ended;
            // One that was given up is another's by now, if it is there at all. They end nearly in their order.
            if let Some(place) = self.waiting.iter().position(|(_, waiting)| *waiting == ticket) {
                self.waiting.remove(place);
                let (_, output) = self.connection.buffers();
                self.shared.finish(&mut scanner, ticket, outcome, now, |_, _, write| output.push(write));
            }
            left -= 1;
            // Looked at only when there is room for one more: what is taken out must be answered.
            let more = left > 0 && self.connection.has_room();
            match self.outcomes.as_mut().filter(|_| more).and_then(|outcomes| outcomes.told.try_recv().ok()) {
                Some(next) => ended = next,
                None => return self.connection.settle(),
            }
        }
    }

    /// Answers calls that have waited too long.
    fn give_up(&mut self) -> Result<(), CloseReason> {
        let now = clock::boot();
        let mut scanner = Scanner::default();
        while let Some((since, ticket)) = self.waiting.front().copied()
            && now.since(since) >= PATIENCE
            && self.connection.has_room()
        {
            self.waiting.pop_front();
            if let Some(call) = self.shared.waiting.take(TransactionKey(ticket)) {
                let (_, output) = self.connection.buffers();
                self.shared.give_up(&mut scanner, &call, |_, _, write| output.push(write));
            }
        }
        self.connection.settle()
    }

    /// Answers what waits, as long as the peer takes it and it is worth waiting for.
    async fn last_answers(&mut self) {
        let deadline = Instant::now() + LAST_ANSWERS;
        while !self.waiting.is_empty() && self.connection.has_room() {
            let oldest = self.oldest();
            let worked = tokio::select! {
                first = outcome(&mut self.outcomes) => self.finish(first),
                () = wait_until(oldest) => self.give_up(),
                () = sleep_until(deadline) => return,
            };
            if worked.is_err() {
                return;
            }
        }
    }

    /// When the call that has waited longest is given up.
    fn oldest(&self) -> Option<Instant> {
        let (since, _) = self.waiting.front()?;
        Some(Instant::now() + PATIENCE.saturating_sub(clock::boot().since(*since)))
    }
}

impl Outcomes {
    fn new() -> Self {
        let (tell, told) = mpsc::channel(MAX_WAITING);
        Self { tell, told }
    }
}

/// The end of the next wait.
async fn outcome(outcomes: &mut Option<Outcomes>) -> (u128, Outcome) {
    if let Some(outcomes) = outcomes
        && let Some(next) = outcomes.told.recv().await
    {
        return next;
    }
    std::future::pending().await
}

/// Never, where there is nothing to wait for.
async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
