//! All calls of a load: which message is whose, whose time has come, and what is counted.
//!
//! Pure: no sockets; messages to send gather in a list. Invariant: each call that begins is counted once, as ended or
//! as lost, and every failure by its name.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::call::{Call, Failure, Output, Plan};
use super::keyword::append_call_id;
use super::received::Received;
use crate::load::ladder::Escaped;
use crate::load::pace::{Due, Pacer};
use crate::load::progress::Counts;
use crate::load::slab::ROOM;
use crate::load::tally::Tally;

/// Calls that begin, and timers that are heeded, before messages are looked at again.
const BATCH: usize = 64;
/// Lines that actions write; what comes after is not shown.
const MAX_LINES: usize = 1_000;
/// Place of the latency of whole calls; those of the timers follow.
const CALL: usize = 0;

/// The calls in flight.
pub(super) struct Engine<'a> {
    plan: &'a Plan,
    pacer: Pacer,
    calls: HashMap<u64, Open>,
    /// Moments at which calls want to be looked at.
    wakes: BTreeSet<(Duration, u64)>,
    outputs: Vec<Output>,
    tally: Tally,
    lines: Vec<String>,
    shown: usize,
    /// What stands behind the number in the identifier of each call.
    call_id_end: Vec<u8>,
    stopped: bool,
    last: Duration,
    /// Messages to send.
    pub(super) messages: Vec<Vec<u8>>,
}

struct Open {
    call: Call,
    wake: Option<Duration>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(plan: &'a Plan, pacer: Pacer) -> Self {
        let timers: Vec<String> = plan.scenario.timers.iter().map(|name| format!("rtd {name}")).collect();
        let names: Vec<&str> = ["call"].into_iter().chain(timers.iter().map(String::as_str)).collect();
        let mut call_id = Vec::new();
        append_call_id(&plan.ends, plan.run, 0, &mut call_id);
        Self {
            plan,
            pacer,
            calls: HashMap::new(),
            wakes: BTreeSet::new(),
            outputs: Vec::new(),
            tally: Tally::new(&names),
            lines: Vec::new(),
            shown: 0,
            call_id_end: call_id.split_off(1),
            stopped: false,
            last: Duration::ZERO,
            messages: Vec::new(),
        }
    }

    /// Begins calls that are due, up to a batch of them. Gives whether more may be due.
    pub(super) fn begin(&mut self, now: Duration) -> bool {
        for _ in 0..BATCH {
            let Some(due) = self.due(now) else { return false };
            self.tally.begin(due.at);
            if self.calls.len() >= ROOM {
                self.lose("no_room", now);
                continue;
            }
            let number = due.call + 1;
            let call = Call::start(self.plan, number, (now, due.at), &mut self.outputs);
            self.calls.insert(number, Open { call, wake: None });
            self.settle(number, now);
        }
        true
    }

    /// Counts calls that are due as lost without beginning them. In a closed loop that is one: the next would be due at
    /// once.
    pub(super) fn refuse(&mut self, why: &str, now: Duration) {
        while let Some(due) = self.due(now) {
            self.tally.begin(due.at);
            self.lose(why, now);
            if self.pacer.wake().is_none() {
                return;
            }
        }
    }

    fn due(&mut self, now: Duration) -> Option<Due> {
        if self.stopped { None } else { self.pacer.take(now, self.calls.len()) }
    }

    /// Takes a message of the peer's.
    pub(super) fn receive(&mut self, message: &[u8], now: Duration) {
        let received = Received::parse(message);
        let found = received.and_then(|received| Some((self.number_of(received.call_id)?, received)));
        let Some((number, received)) = found else {
            self.tally.stray += 1;
            return;
        };
        let Some(open) = self.calls.get_mut(&number) else {
            self.tally.stray += 1;
            return;
        };
        open.call.handle_message(self.plan, (message, &received), now, &mut self.outputs);
        self.settle(number, now);
    }

    /// Heeds timers that are due, up to a batch of them.
    pub(super) fn expire(&mut self, now: Duration) {
        let due: Vec<u64> =
            self.wakes.iter().take_while(|(at, _)| *at <= now).take(BATCH).map(|(_, number)| *number).collect();
        for number in due {
            if let Some(open) = self.calls.get_mut(&number) {
                open.call.handle_timer(self.plan, now, &mut self.outputs);
                self.settle(number, now);
            }
        }
    }

    /// Ends all calls.
    pub(super) fn give_up(&mut self, failure: Failure, now: Duration) {
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            if let Some(open) = self.calls.get_mut(&number) {
                open.call.give_up(failure, now, &mut self.outputs);
                self.settle(number, now);
            }
        }
    }

    /// No call begins any more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether no call is in flight and none will be.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.calls.is_empty() && (self.stopped || self.pacer.is_over(now))
    }

    /// When time alone makes something due.
    pub(super) fn wake(&self) -> Option<Duration> {
        let begin = if self.stopped { None } else { self.pacer.wake() };
        self.wakes.first().map(|(at, _)| *at).into_iter().chain(begin).min()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { begun: self.tally.begun, ended: self.tally.ended, lost: self.tally.lost }
    }

    /// Lines for the screen, with nothing in them that could steer it.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// The counts, and when the last call began or ended.
    pub(super) fn finish(self) -> (Tally, Duration) {
        (self.tally, self.last)
    }

    /// Does what a call wants, and keeps when it wants to be looked at again.
    fn settle(&mut self, number: u64, now: Duration) {
        self.last = now;
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Ended { after, failure: None } => {
                    self.tally.measure(CALL, after);
                    self.tally.end(now);
                }
                Output::Ended { failure: Some(failure), .. } => self.lose(&failure.to_string(), now),
                Output::Final(code) => self.tally.count(&code.to_string()),
                Output::Line(line) => self.show(number, &line),
                Output::Measured { timer, time } => self.tally.measure(CALL + 1 + timer, time),
                Output::Repeated => self.tally.retransmissions += 1,
                Output::Send(message) => self.messages.push(message),
            }
        }
        let Some(open) = self.calls.get_mut(&number) else { return };
        let wake = open.call.deadline();
        if open.wake != wake {
            if let Some(before) = open.wake {
                self.wakes.remove(&(before, number));
            }
            self.wakes.extend(wake.map(|wake| (wake, number)));
            open.wake = wake;
        }
        if open.call.has_ended() {
            self.calls.remove(&number);
        }
    }

    fn lose(&mut self, why: &str, now: Duration) {
        self.last = now;
        self.tally.lose(now);
        self.tally.count(why);
    }

    fn show(&mut self, number: u64, line: &[u8]) {
        if self.shown < MAX_LINES {
            self.shown += 1;
            self.lines.push(format!("call {number}: {}", Escaped(&String::from_utf8_lossy(line))));
        }
    }

    /// The number of the call with this identifier. What a scenario writes before `///` is not part of it, as in SIPp.
    fn number_of(&self, call_id: &[u8]) -> Option<u64> {
        let start = memchr::memmem::rfind(call_id, b"///").map_or(0, |found| found + 3);
        let number = call_id[start..].strip_suffix(self.call_id_end.as_slice())?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::pace::{Bounds, Pace};
    use crate::load::scenario::call::tests::{BUSY, plan, response};

    const SECOND: Duration = Duration::from_secs(1);
    const MISSED: &str = r#"<send start_rtd="a"><![CDATA[
        INVITE sip:a SIP/2.0
        Call-ID: pre///[call_id]
    ]]></send><nop><action><log message="number [call_number]"/></action></nop><recv response="486" rtd="a"/>"#;

    #[test]
    fn a_load_is_counted_call_by_call() {
        let plan = plan(MISSED);
        let mut engine = engine(&plan, Pace::Closed { window: 2 }, Some(3));
        assert!(!engine.begin(Duration::ZERO));
        assert_eq!((engine.messages.len(), engine.calls.len()), (2, 2));
        assert_eq!(engine.take_lines(), ["call 1: number 1", "call 2: number 2"]);
        engine.receive(&response(1, BUSY, "INVITE"), SECOND);
        engine.receive(&response(1, BUSY, "INVITE"), SECOND);
        engine.receive(b"SIP/2.0 486 Busy Here\r\nCall-ID: 2-8@127.0.0.2\r\nCSeq: 1 INVITE\r\n\r\n", SECOND);
        engine.begin(SECOND);
        assert!(engine.calls.contains_key(&3) && !engine.is_over(SECOND));
        engine.receive(&response(2, "503 No", "INVITE"), SECOND * 2);
        assert_eq!(engine.wake(), Some(SECOND * 6));
        engine.expire(SECOND * 6);
        assert!(engine.is_over(SECOND * 6));
        let (tally, last) = engine.finish();
        assert_eq!((tally.begun, tally.ended, tally.lost, tally.stray, last), (3, 1, 2, 2, SECOND * 6));
        let codes: Vec<_> = tally.codes.iter().map(|(code, count)| (code.as_str(), *count)).collect();
        assert_eq!(codes, [("486", 1), ("timeout", 1), ("unexpected 503", 1)]);
        let latencies: Vec<_> =
            tally.latencies.iter().map(|latency| (latency.name.as_str(), latency.histogram.len())).collect();
        assert_eq!(latencies, [("call", 1), ("rtd a", 1)]);
    }

    #[test]
    fn what_cannot_begin_is_lost_by_a_name() {
        let plan = plan(MISSED);
        let mut engine = engine(&plan, Pace::Open { rate: 1.0, ramp: Duration::ZERO }, Some(5));
        engine.begin(Duration::ZERO);
        engine.refuse("connection", SECOND * 2);
        engine.give_up(Failure::Interrupted, SECOND * 2);
        engine.stop();
        assert!(engine.is_over(SECOND * 2));
        let (tally, _) = engine.finish();
        assert_eq!((tally.begun, tally.lost), (3, 3));
        assert_eq!((tally.codes["connection"], tally.codes["interrupted"]), (2, 1));
    }

    fn engine(plan: &Plan, pace: Pace, calls: Option<u64>) -> Engine<'_> {
        Engine::new(plan, Pacer::new(pace, Bounds { duration: SECOND * 60, calls }, 0, 1))
    }
}
