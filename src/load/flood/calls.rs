//! The calls of one thread or connection: which begin, which end, which are given up. No sockets and no clock.
//!
//! Everything has the time since the start of the load as an argument, and appends what is to be sent to a buffer.
//! Invariant: each call that begins ends once, answered or lost. RFC 3261 17.1.1.

use std::time::Duration;

use super::reply::Reader;
use super::script::Script;
use super::timers::{Look, Timers};
use crate::load::pace::{Due, Pacer};
use crate::load::progress::Counts;
use crate::load::slab::{Key, Slab};
use crate::load::tally::Tally;

/// The only latency of this part.
pub(crate) const LATENCY: &str = "INVITE to final";

/// Codes have three digits.
const CODES: usize = 1_000;

/// A call in flight.
#[derive(Debug)]
struct Call {
    /// Its number in the load.
    number: u64,
    /// The moment that its latency counts from.
    begun: Duration,
    /// Whether a provisional response has come: its INVITE is not sent again (RFC 3261 17.1.1.2).
    proceeding: bool,
}

/// The calls of one thread or connection.
#[derive(Debug)]
pub(crate) struct Calls {
    pacer: Pacer,
    slab: Slab<Call>,
    timers: Timers,
    reader: Reader,
    tally: Tally,
    codes: Box<[u64; CODES]>,
    /// No call begins any more, whatever the pacer says.
    stopped: bool,
    last: Duration,
}

impl Calls {
    /// None yet. `seed` makes the keys of this run its own.
    pub(crate) fn new(pacer: Pacer, timers: Timers, seed: u64) -> Self {
        Self {
            pacer,
            slab: Slab::new((seed >> 32) as u32),
            timers,
            reader: Reader::new(),
            tally: Tally::new(&[LATENCY]),
            codes: Box::new([0; CODES]),
            stopped: false,
            last: Duration::ZERO,
        }
    }

    /// Takes one message of the peer's, and appends the ACK of a final response.
    pub(crate) fn receive(&mut self, script: &Script<'_>, message: &[u8], now: Duration, out: &mut Vec<u8>) {
        let Some(reply) = self.reader.read(message) else {
            self.tally.stray += 1;
            return;
        };
        if reply.code < 200 {
            match self.slab.get_mut(reply.key) {
                Some(call) => call.proceeding = true,
                None => self.tally.stray += 1,
            }
            return;
        }
        let Some(call) = self.slab.remove(reply.key) else {
            self.tally.stray += 1;
            return;
        };
        script.ack(call.number, reply.key, (reply.code, reply.to), out);
        self.codes[usize::from(reply.code)] += 1;
        self.tally.measure(0, now.saturating_sub(call.begun));
        self.tally.end(now);
        self.last = now;
    }

    /// Does the next thing that is due, and appends what it sends: an INVITE again, a call given up, or a call that
    /// begins. Gives whether there was one.
    pub(crate) fn next(&mut self, script: &Script<'_>, now: Duration, out: &mut Vec<u8>) -> bool {
        if self.expire(script, now, out) {
            return true;
        }
        let Some(due) = self.take(now) else { return false };
        self.begin(script, due, now, out);
        true
    }

    /// The same, but begins no call.
    pub(crate) fn expire(&mut self, script: &Script<'_>, now: Duration, out: &mut Vec<u8>) -> bool {
        let slab = &mut self.slab;
        match self.timers.due(now, |key| slab.get_mut(key).is_some()) {
            Some(Look::Again(key)) => self.again(script, key, out),
            Some(Look::End(key)) => {
                self.slab.remove(key);
                self.lose("timeout", now);
            }
            None => return false,
        }
        true
    }

    /// Gives up every call in flight, by the name of what ended them.
    pub(crate) fn lose_all(&mut self, why: &str, now: Duration) {
        for _ in 0..self.slab.clear() {
            self.lose(why, now);
        }
        self.timers.clear();
    }

    /// Gives up the calls of an open loop that are due and cannot begin. A closed loop begins no more meanwhile.
    pub(crate) fn refuse_due(&mut self, why: &str, now: Duration) {
        while self.pacer.wake().is_some()
            && let Some(_) = self.take(now)
        {
            self.tally.begin(now);
            self.lose(why, now);
        }
    }

    /// No call begins from now on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether no call is in flight, and none begins any more.
    pub(crate) fn is_done(&self, now: Duration) -> bool {
        self.slab.is_empty() && (self.stopped || self.pacer.is_over(now))
    }

    /// When [`Calls::next`] has something to do again, if time alone brings it about.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let begin = if self.stopped { None } else { self.pacer.wake() };
        begin.into_iter().chain(self.timers.wake()).min()
    }

    /// How many have begun, ended and been lost so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts { begun: self.tally.begun, ended: self.tally.ended, lost: self.tally.lost }
    }

    /// All that was counted, and when the last call began or ended.
    pub(crate) fn finish(mut self) -> (Tally, Duration) {
        for (code, count) in self.codes.iter().enumerate().filter(|(_, count)| **count > 0) {
            *self.tally.codes.entry(format!("{code}")).or_default() += count;
        }
        (self.tally, self.last)
    }

    fn take(&mut self, now: Duration) -> Option<Due> {
        if self.stopped { None } else { self.pacer.take(now, self.slab.len()) }
    }

    fn begin(&mut self, script: &Script<'_>, due: Due, now: Duration, out: &mut Vec<u8>) {
        self.tally.begin(now);
        self.last = now;
        match self.slab.insert(Call { number: due.call, begun: due.at, proceeding: false }) {
            Some(key) => {
                script.invite(due.call, key, out);
                self.timers.sent(now, key);
            }
            None => self.lose("no_room", now),
        }
    }

    fn again(&mut self, script: &Script<'_>, key: Key, out: &mut Vec<u8>) {
        if let Some(call) = self.slab.get_mut(key).filter(|call| !call.proceeding) {
            script.invite(call.number, key, out);
            self.tally.retransmissions += 1;
        }
    }

    fn lose(&mut self, why: &str, now: Duration) {
        self.tally.count(why);
        self.tally.lose(now);
    }
}

#[cfg(test)]
mod tests;
