//! One call of a scenario: what it sends, what it waits for, and how it ends.
//!
//! Pure: times are spans since the start of the load, and randomness is a seed. [`Call::start`],
//! [`Call::handle_message`] and [`Call::handle_timer`] append what is to be done to a list; after each of them
//! [`Call::deadline`] tells when to come again. Plays the steps as SIPp 3.6 does, but for the default of `timeout`.
//! Invariant: a call that has ended does nothing, and each call ends once.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use super::abort::Aborts;
use super::fields::Fields;
pub(super) use super::output::{Failure, Output};
use super::random::Random;
use super::received::Received;
use super::step::{Act, Kind, Optional, Pause, Scenario, Send, Step};
use super::template::{Ends, Template, View};
use crate::load::call::T1;
use crate::sip::flow::Transport;

/// Steps that a call takes without waiting for anything; a scenario that wants more runs in a circle.
const MAX_STEPS: usize = 1_000;
/// Most times that an INVITE is sent again, and any other request, as in SIPp.
const MAX_REPEATS: (u32, u32) = (5, 7);
/// T2: the longest pause before a request that is no INVITE is sent again (RFC 3261 17.1.2.2).
const T2: Duration = T1.saturating_mul(8);

/// What all calls of a load share.
#[derive(Debug)]
pub struct Plan {
    /// The steps.
    pub scenario: Scenario,
    /// The CSV.
    pub fields: Option<Fields>,
    /// The way that messages take.
    pub ends: Ends,
    /// A number of this run, which no other has.
    pub run: u32,
    /// What makes the calls of this run differ.
    pub seed: u64,
    /// How long a `<recv>` without `timeout` waits.
    pub timeout: Duration,
    /// Time of day at the start of the load, since 1970-01-01, UTC.
    pub epoch: Duration,
    /// What ends calls that did not go as the scenario says.
    pub aborts: Aborts,
}

/// One call on its way.
#[derive(Debug)]
pub struct Call {
    number: u64,
    /// Place of the step that it is at.
    index: usize,
    waiting: Waiting,
    cseq: u32,
    line: usize,
    random: Random,
    peer_tag: Vec<u8>,
    /// Head of the last message of the peer.
    last: Vec<u8>,
    /// Place and kind of the last message that was sent.
    sent: Option<(usize, Kind)>,
    /// Whether the peer has answered an INVITE with 2xx.
    answered: bool,
    repeat: Option<Repeat>,
    /// The last message that came, while nothing has been sent since.
    heard: Option<u64>,
    /// A message that came, and what was sent next: the peer that repeats the one has not seen the other.
    reply: Option<(u64, Vec<u8>)>,
    began: Option<Duration>,
    timers: Vec<Measure>,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// An end of the repeating of its last request.
    Acknowledgement,
    /// A message, until then.
    Message(Duration),
    /// The end.
    Nothing,
    /// That moment.
    Pause(Duration),
}

/// A request that is sent until something comes.
#[derive(Debug)]
struct Repeat {
    message: Vec<u8>,
    pause: Duration,
    at: Duration,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    /// Since then, or since the call's beginning.
    Runs(Option<Duration>),
    Done,
}

/// Two times of one moment: what timers count from, and what latencies count from, which is before it for a call that
/// begins late.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Duration,
    meant: Duration,
}

impl Call {
    /// Begins call `number`, from 1, which was to begin at `intended`.
    #[must_use]
    pub fn start(plan: &Plan, number: u64, (now, intended): (Duration, Duration), out: &mut Vec<Output>) -> Self {
        let mut random = Random::new(plan.seed, number);
        let choice = random.number();
        let line = plan.fields.as_ref().map_or(0, |fields| fields.line_of(number.saturating_sub(1), choice));
        let mut call = Self {
            number,
            index: 0,
            waiting: Waiting::Nothing,
            cseq: 0,
            line,
            random,
            peer_tag: Vec::new(),
            last: Vec::new(),
            sent: None,
            answered: false,
            repeat: None,
            heard: None,
            reply: None,
            began: None,
            timers: vec![Measure::Runs(None); plan.scenario.timers.len()],
        };
        call.go_on(plan, Moment { now, meant: intended }, out);
        call
    }

    /// When [`Call::handle_timer`] is wanted; `None` once the call has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let waiting = match self.waiting {
            Waiting::Nothing => return None,
            Waiting::Message(at) | Waiting::Pause(at) => Some(at),
            Waiting::Acknowledgement => None,
        };
        let repeat = self.repeat.as_ref().map(|repeat| repeat.at);
        waiting.into_iter().chain(repeat).min()
    }

    /// Whether the call is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.waiting == Waiting::Nothing
    }

    /// Takes a message of the peer's that has this call's identifier.
    pub(super) fn handle_message(
        &mut self,
        plan: &Plan,
        (message, received): (&[u8], &Received<'_>),
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if self.has_ended() {
            return;
        }
        let key = key_of(message);
        if plan.is_unreliable() {
            if let Some((_, reply)) = self.reply.as_ref().filter(|(heard, _)| *heard == key) {
                out.extend([Output::Repeated, Output::Send(reply.clone())]);
                return;
            }
            if self.heard == Some(key) {
                return;
            }
        }
        if let Some(tag) = received.code().and(received.head.to_tag()) {
            self.peer_tag = [&b";tag="[..], tag].concat();
        }
        let moment = Moment { now, meant: now };
        let Some(found) = plan.scenario.place_of(self.index, received) else {
            self.last = received.head.bytes().to_vec();
            return self.fail(plan, Failure::unexpected(received.start), moment, out);
        };
        let step = &plan.scenario.steps[found];
        if self.is_lost(step) {
            return;
        }
        self.book(step, moment, out);
        self.last = received.head.bytes().to_vec();
        self.write_lines(plan, step, moment, out);
        self.heard = Some(key);
        if let Some(code) = received.code() {
            self.note_response(code, received.method, found);
            if code >= 200 {
                out.push(Output::Final(code));
            }
        }
        let is_optional = matches!(&step.act, Act::Receive(receive) if receive.optional != Optional::No);
        if !is_optional || step.jump.is_some() {
            self.index = self.behind(found, step);
            self.go_on(plan, moment, out);
        } else if self.waiting == Waiting::Acknowledgement && self.repeat.is_none() {
            self.go_on(plan, moment, out);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timer(&mut self, plan: &Plan, now: Duration, out: &mut Vec<Output>) {
        let moment = Moment { now, meant: now };
        if self.repeat.as_ref().is_some_and(|repeat| repeat.at <= now) {
            self.send_again(plan, moment, out);
        }
        match self.waiting {
            Waiting::Pause(at) if at <= now => {
                if let Some(step) = plan.scenario.steps.get(self.index) {
                    self.index = self.behind(self.index, step);
                }
                self.go_on(plan, moment, out);
            }
            Waiting::Message(at) if at <= now => {
                let (_, on_timeout) = plan.scenario.patience(self.index, plan.timeout);
                self.time_out(plan, on_timeout, moment, out);
            }
            _ => {}
        }
    }

    /// Ends the call from outside.
    pub fn give_up(&mut self, failure: Failure, now: Duration, out: &mut Vec<Output>) {
        if !self.has_ended() {
            self.end(Some(failure), Moment { now, meant: now }, out);
        }
    }

    /// Takes steps until one has to wait.
    fn go_on(&mut self, plan: &Plan, moment: Moment, out: &mut Vec<Output>) {
        for _ in 0..MAX_STEPS {
            let Some(step) = plan.scenario.steps.get(self.index) else {
                return self.end(None, moment, out);
            };
            match &step.act {
                Act::Send(_) if self.repeat.is_some() => {
                    self.waiting = Waiting::Acknowledgement;
                    return;
                }
                Act::Send(send) => {
                    if !self.send(plan, (step, send), moment, out) {
                        return self.fail(plan, Failure::TooLong, moment, out);
                    }
                }
                Act::Receive(_) => {
                    self.waiting = Waiting::Message(moment.now + plan.scenario.patience(self.index, plan.timeout).0);
                    return;
                }
                Act::Pause(pause) => {
                    self.book(step, moment, out);
                    self.write_lines(plan, step, moment, out);
                    self.waiting = Waiting::Pause(moment.now + self.length_of(*pause));
                    return;
                }
                Act::Nothing => {
                    self.book(step, moment, out);
                    self.write_lines(plan, step, moment, out);
                }
            }
            self.index = self.behind(self.index, step);
        }
        self.fail(plan, Failure::Loop, moment, out);
    }

    /// Sends a step's message; whether it could be written.
    fn send(&mut self, plan: &Plan, (step, send): (&Step, &Send), moment: Moment, out: &mut Vec<Output>) -> bool {
        self.began.get_or_insert(moment.meant);
        self.book(step, moment, out);
        if matches!(send.kind, Kind::Invite | Kind::Other) {
            self.cseq = self.cseq.saturating_add(1);
        }
        let Some(message) = self.render(plan, &send.message, moment) else { return false };
        self.sent = Some((self.index, send.kind));
        if let Some(heard) = self.heard.take().filter(|_| plan.is_unreliable()) {
            self.reply = Some((heard, message.clone()));
        }
        if let Some(pause) = send.repeat.filter(|_| plan.is_unreliable()) {
            self.repeat = Some(Repeat { message: message.clone(), pause, at: moment.now + pause, count: 0 });
        }
        if !self.is_lost(step) {
            out.push(Output::Send(message));
        }
        self.write_lines(plan, step, moment, out);
        true
    }

    fn send_again(&mut self, plan: &Plan, moment: Moment, out: &mut Vec<Output>) {
        let Some((step, kind)) = self.sent.and_then(|(place, kind)| Some((plan.scenario.steps.get(place)?, kind)))
        else {
            return;
        };
        let is_lost = self.is_lost(step);
        let Some(repeat) = &mut self.repeat else { return };
        let (invites, others) = MAX_REPEATS;
        let is_invite = kind == Kind::Invite;
        if repeat.count >= if is_invite { invites } else { others } {
            self.repeat = None;
            return self.time_out(plan, step.on_timeout, moment, out);
        }
        repeat.count += 1;
        repeat.pause = repeat.pause.saturating_mul(2);
        if !is_invite {
            repeat.pause = repeat.pause.min(T2);
        }
        repeat.at = moment.now + repeat.pause;
        if !is_lost {
            out.extend([Output::Repeated, Output::Send(repeat.message.clone())]);
        }
    }

    /// Nothing came in time: goes on where the scenario says, or fails.
    fn time_out(&mut self, plan: &Plan, on_timeout: Option<usize>, moment: Moment, out: &mut Vec<Output>) {
        match on_timeout.filter(|to| *to < plan.scenario.steps.len()) {
            Some(to) => {
                self.index = to;
                self.go_on(plan, moment, out);
            }
            None => self.fail(plan, Failure::Timeout, moment, out),
        }
    }

    /// What a response that was expected changes: it may end the repeating of the request (RFC 3261 17.1).
    fn note_response(&mut self, code: u16, method: &str, found: usize) {
        let is_invite = method == "INVITE";
        self.answered |= is_invite && (200..300).contains(&code);
        if self.sent.is_some_and(|(place, _)| found > place) {
            if code >= 200 || is_invite {
                self.repeat = None;
            } else if let Some(repeat) = &mut self.repeat {
                repeat.pause = T2;
            }
        }
    }

    /// Where the call goes on after a step.
    fn behind(&mut self, index: usize, step: &Step) -> usize {
        match step.jump {
            Some(jump) if jump.chance >= 1.0 || self.random.share() < jump.chance => jump.to,
            _ => index + 1,
        }
    }

    fn book(&mut self, step: &Step, moment: Moment, out: &mut Vec<Output>) {
        if let Some(place) = step.start_timer
            && let Some(Measure::Runs(since)) = self.timers.get_mut(place)
        {
            *since = Some(moment.meant);
        }
        if let Some(place) = step.stop_timer
            && let Some(timer) = self.timers.get_mut(place)
            && let Measure::Runs(since) = *timer
        {
            *timer = Measure::Done;
            let since = since.or(self.began).unwrap_or(moment.meant);
            out.push(Output::Measured { timer: place, time: moment.meant.saturating_sub(since) });
        }
    }

    fn write_lines(&self, plan: &Plan, step: &Step, moment: Moment, out: &mut Vec<Output>) {
        let lines = step.lines.iter().filter_map(|line| self.render(plan, line, moment));
        out.extend(lines.map(Output::Line));
    }

    fn render(&self, plan: &Plan, template: &Template, moment: Moment) -> Option<Vec<u8>> {
        let view = View {
            ends: &plan.ends,
            run: plan.run,
            number: self.number,
            index: self.index,
            cseq: self.cseq,
            peer_tag: &self.peer_tag,
            last: &self.last,
            line: plan.fields.as_ref().map(|fields| (fields, self.line)),
            time: plan.epoch + moment.now,
        };
        let mut message = Vec::with_capacity(1_024);
        template.render(&view, &mut message).is_ok().then_some(message)
    }

    /// Ends the call and what the peer may still hold of it.
    fn fail(&mut self, plan: &Plan, failure: Failure, moment: Moment, out: &mut Vec<Output>) {
        let invites = self.sent.is_some_and(|(_, kind)| kind == Kind::Invite);
        let code = match Received::parse(&self.last) {
            Some(last) if last.method == "INVITE" => last.code(),
            _ => None,
        };
        for template in plan.aborts.messages(invites, code, self.answered) {
            out.extend(self.render(plan, template, moment).map(Output::Send));
        }
        self.end(Some(failure), moment, out);
    }

    fn end(&mut self, failure: Option<Failure>, moment: Moment, out: &mut Vec<Output>) {
        self.waiting = Waiting::Nothing;
        self.repeat = None;
        let after = moment.meant.saturating_sub(self.began.unwrap_or(moment.meant));
        out.push(Output::Ended { after, failure });
    }

    fn length_of(&mut self, pause: Pause) -> Duration {
        match pause {
            Pause::Fixed(time) => time,
            Pause::Uniform(least, most) => least + most.saturating_sub(least).mul_f64(self.random.share()),
        }
    }

    fn is_lost(&mut self, step: &Step) -> bool {
        step.lost > 0.0 && self.random.share() < step.lost
    }
}

impl Plan {
    fn is_unreliable(&self) -> bool {
        self.ends.transport == Transport::Udp
    }
}

/// What two copies of a message have in common.
fn key_of(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(message);
    hasher.finish()
}

#[cfg(test)]
pub(super) mod tests;
