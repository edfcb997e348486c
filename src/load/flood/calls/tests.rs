//! Calls on a virtual clock, and a peer that answers as the test says.

use super::*;
use crate::load::flood::identifiers::Lengths;
use crate::load::flood::numbers::Numbers;
use crate::load::flood::script::Plot;
use crate::load::pace::{Bounds, Pace};
use crate::load::slab::ROOM;
use crate::load::target::parse_via;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_refused_call_is_acknowledged_counted_and_makes_room_for_the_next() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 1 }, 5 * SECOND);
    let invite = load.next(Duration::ZERO).unwrap();
    assert!(invite.starts_with("INVITE sip:+966115000000@192.0.2.10:5060;user=phone SIP/2.0\r\n"), "{invite}");
    assert_eq!(load.next(Duration::ZERO), None, "the window is full");

    let ack = load.receive(&answer(&invite, "486 Busy Here"), milliseconds(3)).unwrap();
    assert!(ack.starts_with("ACK sip:+966115000000@192.0.2.10:5060;user=phone SIP/2.0\r\n"), "{ack}");
    for name in ["Via: ", "From: ", "Call-ID: "] {
        assert_eq!(field(&ack, name), field(&invite, name));
    }
    assert_eq!(field(&ack, "To: "), format!("{};tag=peer", field(&invite, "To: ")));
    assert_eq!(field(&ack, "CSeq: "), "1 ACK");

    let second = load.next(milliseconds(3)).unwrap();
    assert_ne!(field(&second, "Call-ID: "), field(&invite, "Call-ID: "));
    assert_eq!(load.receive(&answer(&invite, "486 Busy Here"), milliseconds(4)), None, "a duplicate");
    let _ = load.receive(&answer(&second, "503 Service Unavailable"), milliseconds(5));
    load.calls.stop();
    assert!(load.calls.is_done(milliseconds(5)));
    let (tally, last) = load.calls.finish();
    assert_eq!((tally.begun, tally.ended, tally.lost, tally.stray), (2, 2, 0, 1));
    assert_eq!(tally.codes, [("486".to_owned(), 1), ("503".to_owned(), 1)].into());
    assert_eq!((tally.latencies[0].histogram.len(), last), (2, milliseconds(5)));
    assert!((2_000_000..=3_100_000).contains(&tally.latencies[0].histogram.max()));
}

#[test]
fn an_answered_call_gets_an_ack_that_is_no_part_of_the_invite() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 1 }, SECOND);
    let invite = load.next(Duration::ZERO).unwrap();
    let ack = load.receive(&answer(&invite, "200 OK"), milliseconds(1)).unwrap();
    assert_ne!(field(&ack, "Via: "), field(&invite, "Via: "));
    assert_eq!(load.calls.finish().0.codes, [("200".to_owned(), 1)].into());
}

#[test]
fn an_unanswered_call_is_sent_again_the_same_and_then_lost() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 1 }, 2 * SECOND);
    let invite = load.next(Duration::ZERO);
    assert_eq!((load.calls.wake(), load.next(milliseconds(499))), (Some(milliseconds(500)), None));
    assert_eq!(load.next(milliseconds(500)), invite);
    assert_eq!(load.next(milliseconds(1_500)), invite);
    let next = load.next(2 * SECOND);
    assert_eq!(next, Some(String::new()), "it is given up");
    let _ = load.next(2 * SECOND);
    assert_eq!(load.receive(&answer(&invite.unwrap(), "486 Busy Here"), milliseconds(2_100)), None, "too late");
    let (tally, _) = load.calls.finish();
    assert_eq!((tally.begun, tally.lost, tally.retransmissions, tally.stray), (2, 1, 2, 1));
    assert_eq!(tally.codes, [("timeout".to_owned(), 1)].into());
}

#[test]
fn a_provisional_response_ends_the_repetition_and_not_the_call() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 1 }, 2 * SECOND);
    let invite = load.next(Duration::ZERO).unwrap();
    assert_eq!(load.receive(&answer(&invite, "100 Trying"), milliseconds(1)), None);
    assert_eq!(load.next(milliseconds(600)), Some(String::new()), "looked at, and nothing sent");
    assert!(load.receive(&answer(&invite, "486 Busy Here"), milliseconds(700)).is_some());
    let (tally, _) = load.calls.finish();
    assert_eq!((tally.retransmissions, tally.ended), (0, 1));
}

#[test]
fn an_open_loop_counts_latency_from_the_moment_that_the_rate_gives() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Open { rate: 10.0, ramp: Duration::ZERO }, 5 * SECOND);
    let first = load.next(milliseconds(150)).unwrap();
    let second = load.next(milliseconds(150)).unwrap();
    assert_eq!((load.next(milliseconds(150)), load.calls.wake()), (None, Some(milliseconds(200))));
    for invite in [first, second] {
        assert!(load.receive(&answer(&invite, "486 Busy Here"), milliseconds(160)).is_some());
    }
    let histogram = load.calls.finish().0.latencies.remove(0).histogram;
    assert!((159_000_000..=161_000_000).contains(&histogram.max()), "the first was due at the start");
    assert!((59_000_000..=61_000_000).contains(&histogram.min()), "the second a tenth of a second later");
}

#[test]
fn a_call_that_finds_no_room_is_lost() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Open { rate: 1e6, ramp: Duration::ZERO }, 5 * SECOND);
    let mut out = Vec::new();
    for _ in 0..=ROOM {
        out.clear();
        assert!(load.calls.next(&load.script, SECOND, &mut out));
    }
    assert!(out.is_empty());
    let counts = load.calls.counts();
    assert_eq!((counts.begun, counts.lost), (ROOM as u64 + 1, 1));
    load.calls.lose_all("connection", SECOND);
    load.calls.refuse_due("not_begun", SECOND);
    assert!(load.calls.is_done(SECOND));
    let (tally, _) = load.calls.finish();
    assert_eq!((tally.begun, tally.lost), (1_000_000, 1_000_000));
    assert_eq!((tally.codes["no_room"], tally.codes["connection"]), (1, ROOM as u64));
}

#[test]
fn a_closed_loop_without_a_way_out_begins_nothing() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 4 }, SECOND);
    load.calls.refuse_due("connection", SECOND / 2);
    assert_eq!(load.calls.counts(), Counts::default());
}

#[test]
fn what_belongs_to_no_call_is_counted_and_nothing_else() {
    let plot = plot();
    let mut load = Load::new(&plot, Pace::Closed { window: 1 }, SECOND);
    let invite = load.next(Duration::ZERO).unwrap();
    let busy = answer(&invite, "486 Busy Here");
    let at = busy.find("z9hG4bK").unwrap() + "z9hG4bK".len();
    let foreign = |key: &str| format!("{}{key}{}", &busy[..at], &busy[at + 12..]);
    let strange =
        [String::new(), "\r\n\r\n".to_owned(), invite.clone(), foreign("ffff00000000"), foreign("0000ffffffff")];
    for message in &strange {
        assert_eq!(load.receive(message, milliseconds(1)), None, "{message}");
    }
    assert!(load.receive(&busy, milliseconds(2)).is_some());
    let (tally, _) = load.calls.finish();
    assert_eq!((tally.stray, tally.ended), (strange.len() as u64, 1));
}

struct Load<'a> {
    calls: Calls,
    script: Script<'a>,
}

impl<'a> Load<'a> {
    fn new(plot: &'a Plot, pace: Pace, timeout: Duration) -> Self {
        let via = parse_via("udp:192.0.2.10:5060").unwrap();
        let script = Script::new(plot, "192.0.2.1:4000".parse().unwrap(), via);
        let duration = if matches!(pace, Pace::Open { .. }) { SECOND } else { 60 * SECOND };
        let bounds = Bounds { duration, calls: None };
        Self { calls: Calls::new(Pacer::new(pace, bounds, 0, 1), Timers::unreliable(timeout), plot.seed), script }
    }

    /// What is sent, if anything was to be done.
    fn next(&mut self, now: Duration) -> Option<String> {
        let mut out = Vec::new();
        self.calls.next(&self.script, now, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    /// What is sent upon a message.
    fn receive(&mut self, message: &str, now: Duration) -> Option<String> {
        let mut out = Vec::new();
        self.calls.receive(&self.script, message.as_bytes(), now, &mut out);
        (!out.is_empty()).then(|| String::from_utf8(out).unwrap())
    }
}

fn answer(invite: &str, status: &str) -> String {
    let echoed: String =
        ["Via: ", "From: ", "Call-ID: "].map(|name| format!("{name}{}\r\n", field(invite, name))).concat();
    let to = field(invite, "To: ");
    format!("SIP/2.0 {status}\r\n{echoed}To: {to};tag=peer\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n")
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message.lines().find_map(|line| line.strip_prefix(name)).unwrap()
}

fn plot() -> Plot {
    let numbers = |text: &str| Numbers::new(&[text.parse().unwrap()]).unwrap();
    let (from, to) = (numbers("+966500000000/1000"), numbers("+966115000000/100"));
    Plot { from, to, headers: Vec::new(), lengths: Lengths::Varied, seed: 7 << 32 }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}
