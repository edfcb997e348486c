//! The verifications in flight, and what has become of the others. No sockets and no clock: times are since the start.
//!
//! Invariant: a verification that begins ends once: as it should, with its final response and its webhook, or lost,
//! with a code that tells what it lacked. Only one that the node was not asked for may be withdrawn: it has not begun.
//! What is kept has a limit.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::body::Id;
use crate::e164::E164;
use crate::load::pace::Due;
use crate::load::progress::Counts;
use crate::load::slab::{Key, Slab};
use crate::load::tally::Tally;

/// Latencies of this part, in the order of their places in the tally.
const LATENCIES: [&str; 4] = ["create", "INVITE to final", "INVITE to webhook", "whole verification"];
const CREATE: usize = 0;
const FINAL: usize = 1;
const WEBHOOK: usize = 2;
const WHOLE: usize = 3;

/// Ended verifications whose ids are remembered, to tell a duplicate webhook from a stranger's.
const REMEMBERED: usize = 1 << 16;

/// A verification in flight.
#[derive(Debug)]
struct Verification {
    number: u64,
    /// When it was to begin.
    begun: Duration,
    /// When it was counted as begun.
    counted: Duration,
    /// Whether the node was asked to create it.
    is_requested: bool,
    call: Option<Call>,
}

/// Its call, once it is created.
#[derive(Debug)]
struct Call {
    id: Id,
    dialled: E164,
    sent: Option<Duration>,
    response: Response,
    has_webhook: bool,
}

/// What the carrier has heard of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Nothing,
    Provisional,
    Final,
}

/// What an id stands for.
#[derive(Debug, Clone, Copy)]
enum Known {
    Open(Key),
    Ended,
}

/// A call as its messages need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// Number of the verification in the load.
    pub(super) number: u64,
    /// What is called.
    pub(super) dialled: E164,
}

/// All verifications of a load.
#[derive(Debug)]
pub(super) struct Board {
    slab: Slab<Verification>,
    ids: HashMap<Id, Known>,
    ended: VecDeque<Id>,
    /// When each is given up, in the order of their beginnings.
    deadlines: VecDeque<(Duration, Key)>,
    timeout: Duration,
    tally: Tally,
    last: Duration,
}

impl Board {
    /// None yet. `first_generation` makes the keys of this run its own.
    pub(super) fn new(timeout: Duration, first_generation: u32) -> Self {
        Self {
            slab: Slab::new(first_generation),
            ids: HashMap::new(),
            ended: VecDeque::new(),
            deadlines: VecDeque::new(),
            timeout,
            tally: Tally::new(&LATENCIES),
            last: Duration::ZERO,
        }
    }

    /// How many are in flight.
    pub(super) fn open(&self) -> usize {
        self.slab.len()
    }

    /// Whether one is in flight.
    pub(super) fn is_open(&mut self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// How many have begun, ended and been lost so far.
    pub(super) fn counts(&self) -> Counts {
        Counts { begun: self.tally.begun, ended: self.tally.ended, lost: self.tally.lost }
    }

    /// One begins; `None` when there is no room, and then it is lost at once.
    pub(super) fn begin(&mut self, due: Due, now: Duration) -> Option<Key> {
        self.tally.begin(now);
        self.last = now;
        let (number, begun) = (due.call, due.at);
        let verification = Verification { number, begun, counted: now, is_requested: false, call: None };
        let Some(key) = self.slab.insert(verification) else {
            self.lose("no_room", now);
            return None;
        };
        self.deadlines.push_back((due.at + self.timeout, key));
        Some(key)
    }

    /// The node is asked to create it. Gives whether it is still waited for.
    pub(super) fn request(&mut self, key: Key) -> bool {
        let Some(verification) = self.get(key) else { return false };
        verification.is_requested = true;
        true
    }

    /// It has an id, and a number to call. Gives whether it is still waited for.
    pub(super) fn created(&mut self, key: Key, (id, dialled): (Id, E164), sent: Duration, now: Duration) -> bool {
        let Some(verification) = self.get(key) else { return false };
        verification.call = Some(Call { id, dialled, sent: None, response: Response::Nothing, has_webhook: false });
        self.ids.insert(id, Known::Open(key));
        self.tally.measure(CREATE, now.saturating_sub(sent));
        true
    }

    /// It could not be created: lost, with this code.
    pub(super) fn fail(&mut self, key: Key, code: &str, now: Duration) {
        if self.remove(key).is_some() {
            self.lose(code, now);
        }
    }

    /// Its call, to send the INVITE for the first time at `now`.
    pub(super) fn invite(&mut self, key: Key, now: Duration) -> Option<Pair> {
        let verification = self.get(key)?;
        let number = verification.number;
        let call = verification.call.as_mut()?;
        call.sent.get_or_insert(now);
        Some(Pair { number, dialled: call.dialled })
    }

    /// Whether its call has had no response yet.
    pub(super) fn is_unanswered(&mut self, key: Key) -> bool {
        let call = self.get(key).and_then(|verification| verification.call.as_ref());
        call.is_some_and(|call| call.response == Response::Nothing)
    }

    /// Its call, to send the INVITE again.
    pub(super) fn again(&mut self, key: Key) -> Option<Pair> {
        let verification = self.get(key)?;
        let pair = Pair { number: verification.number, dialled: verification.call.as_ref()?.dialled };
        self.tally.retransmissions += 1;
        Some(pair)
    }

    /// A response came; a final one is to be acknowledged where the call is given. One that comes again is too, while
    /// its verification is in flight (RFC 3261 17.1.1.2).
    pub(super) fn response(&mut self, key: Key, code: u16, now: Duration) -> Option<Pair> {
        let found = self.get(key).and_then(|verification| {
            let (number, call) = (verification.number, verification.call.as_mut()?);
            Some((Pair { number, dialled: call.dialled }, call))
        });
        let Some((pair, call)) = found else {
            self.tally.stray += 1;
            return None;
        };
        let before = call.response;
        if code < 200 {
            if before == Response::Nothing {
                call.response = Response::Provisional;
            }
            return None;
        }
        if before == Response::Final {
            self.tally.stray += 1;
            return Some(pair);
        }
        call.response = Response::Final;
        let (sent, is_whole) = (call.sent.unwrap_or(now), call.has_webhook);
        self.tally.count(&format!("final {code}"));
        self.tally.measure(FINAL, now.saturating_sub(sent));
        if is_whole {
            self.end(key, now);
        }
        Some(pair)
    }

    /// A genuine webhook says that this verification is verified. It may come before the final response.
    pub(super) fn webhook(&mut self, id: &Id, now: Duration) {
        let key = match self.ids.get(id) {
            Some(Known::Open(key)) => *key,
            Some(Known::Ended) => return self.tally.count("duplicate webhook"),
            None => {
                self.tally.stray += 1;
                return;
            }
        };
        let Some(call) = self.get(key).and_then(|verification| verification.call.as_mut()) else { return };
        if call.has_webhook {
            return self.tally.count("duplicate webhook");
        }
        call.has_webhook = true;
        let (sent, is_whole) = (call.sent.unwrap_or(now), call.response == Response::Final);
        self.tally.measure(WEBHOOK, now.saturating_sub(sent));
        if is_whole {
            self.end(key, now);
        }
    }

    /// Counts what ends no verification, as `bad signature`.
    pub(super) fn count(&mut self, code: &str) {
        self.tally.count(code);
    }

    /// Gives up what has taken longer than the timeout.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(&(deadline, key)) = self.deadlines.front() {
            if self.get(key).is_some() {
                if deadline > now {
                    return;
                }
                if let Some(verification) = self.remove(key) {
                    self.lose(lacking(&verification), now);
                }
            }
            self.deadlines.pop_front();
        }
    }

    /// The connection of the calls has ended: those that wait for their final response get none any more.
    pub(super) fn disconnect(&mut self, now: Duration) {
        let keys: Vec<Key> = self.deadlines.iter().map(|(_, key)| *key).collect();
        for key in keys {
            let call = self.get(key).and_then(|verification| verification.call.as_ref());
            if call.is_some_and(|call| call.sent.is_some() && call.response != Response::Final) {
                self.fail(key, "connection lost", now);
            }
        }
    }

    /// Takes back what the node was not asked for: it has not begun.
    pub(super) fn withdraw(&mut self) {
        let keys: Vec<Key> = self.deadlines.iter().map(|(_, key)| *key).collect();
        for key in keys {
            if self.get(key).is_some_and(|verification| !verification.is_requested)
                && let Some(verification) = self.remove(key)
            {
                self.tally.withdraw(verification.counted);
            }
        }
    }

    /// Gives up all that is in flight, since the load was interrupted.
    pub(super) fn interrupt(&mut self, now: Duration) {
        let keys: Vec<Key> = self.deadlines.drain(..).map(|(_, key)| key).collect();
        for key in keys {
            self.fail(key, "interrupted", now);
        }
    }

    /// All that was counted, and when the last one began or ended.
    pub(super) fn take(&mut self) -> (Tally, Duration) {
        (std::mem::replace(&mut self.tally, Tally::new(&LATENCIES)), self.last)
    }

    fn end(&mut self, key: Key, now: Duration) {
        let Some(verification) = self.remove(key) else { return };
        self.tally.measure(WHOLE, now.saturating_sub(verification.begun));
        self.tally.end(now);
        self.last = now;
        if let Some(call) = verification.call {
            self.ids.insert(call.id, Known::Ended);
            self.ended.push_back(call.id);
        }
        if self.ended.len() > REMEMBERED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn lose(&mut self, code: &str, now: Duration) {
        self.tally.count(code);
        self.tally.lose(now);
        self.last = now;
    }

    fn get(&mut self, key: Key) -> Option<&mut Verification> {
        self.slab.get_mut(key)
    }

    fn remove(&mut self, key: Key) -> Option<Verification> {
        let verification = self.slab.remove(key)?;
        if let Some(call) = &verification.call {
            self.ids.remove(&call.id);
        }
        Some(verification)
    }
}

/// What a verification that is given up did not get.
fn lacking(verification: &Verification) -> &'static str {
    match &verification.call {
        None => "create timeout",
        Some(call) if call.response != Response::Final => "no final",
        Some(_) => "no webhook",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn a_verification_ends_with_final_response_and_webhook_in_either_order() {
        let mut board = Board::new(TIMEOUT, u32::MAX);
        for (number, webhook_first) in [(0, false), (1, true)] {
            let (key, id) = called(&mut board, number, milliseconds(100 * number));
            if webhook_first {
                board.webhook(&id, milliseconds(300));
            }
            assert_eq!(board.response(key, 100, milliseconds(310)), None);
            let pair = board.response(key, 486, milliseconds(320));
            assert_eq!(pair, Some(Pair { number, dialled: dialled() }));
            if !webhook_first {
                assert_eq!(board.open(), 1);
                board.webhook(&id, milliseconds(330));
            }
            assert_eq!(board.open(), 0);
            board.webhook(&id, milliseconds(340));
        }
        board.expire(Duration::MAX);
        let (tally, last) = board.take();
        assert_eq!((tally.begun, tally.ended, tally.lost, tally.stray), (2, 2, 0, 0));
        assert_eq!(tally.codes.get("final 486"), Some(&2));
        assert_eq!(tally.codes.get("duplicate webhook"), Some(&2));
        assert!(tally.latencies.iter().all(|latency| latency.histogram.len() == 2), "{tally:?}");
        let whole = &tally.latencies[WHOLE].histogram;
        assert!((219_500_000..220_500_000).contains(&whole.min()), "from the moment it was to begin");
        assert_eq!(last, milliseconds(320));
    }

    #[test]
    fn what_a_lost_one_lacked_is_told() {
        let mut board = Board::new(TIMEOUT, 0);
        let uncreated = board.begin(due(0, Duration::ZERO), Duration::ZERO).unwrap();
        let (unanswered, _) = called(&mut board, 1, Duration::ZERO);
        let (untold, id) = called(&mut board, 2, Duration::ZERO);
        board.response(untold, 486, milliseconds(5));
        let refused = board.begin(due(3, Duration::ZERO), Duration::ZERO).unwrap();
        board.fail(refused, "create 429", milliseconds(5));
        board.fail(refused, "create 429", milliseconds(6));

        board.expire(TIMEOUT.saturating_sub(milliseconds(1)));
        assert_eq!(board.open(), 3);
        board.expire(TIMEOUT);
        assert_eq!(board.open(), 0);
        assert!(!board.created(uncreated, (id, dialled()), Duration::ZERO, TIMEOUT), "too late");
        assert_eq!(board.response(unanswered, 486, TIMEOUT), None);
        board.webhook(&id, TIMEOUT);
        let (tally, _) = board.take();
        let codes: Vec<(&str, u64)> = tally.codes.iter().map(|(code, count)| (code.as_str(), *count)).collect();
        let lost = [("create 429", 1), ("create timeout", 1), ("final 486", 1), ("no final", 1), ("no webhook", 1)];
        assert_eq!(codes, lost);
        assert_eq!((tally.lost, tally.ended, tally.stray), (4, 0, 2));
    }

    #[test]
    fn an_invite_is_sent_again_until_something_is_heard() {
        let mut board = Board::new(TIMEOUT, 0);
        let (key, _) = called(&mut board, 0, Duration::ZERO);
        assert!(board.is_unanswered(key));
        assert_eq!(board.again(key), Some(Pair { number: 0, dialled: dialled() }));
        board.response(key, 180, milliseconds(700));
        assert!(!board.is_unanswered(key));
        assert!(board.response(key, 486, milliseconds(800)).is_some());
        assert!(board.response(key, 486, milliseconds(900)).is_some(), "a final response again is acknowledged again");
        let (tally, _) = board.take();
        assert_eq!((tally.retransmissions, tally.stray, tally.codes["final 486"]), (1, 1, 1));
    }

    #[test]
    fn a_lost_connection_loses_the_calls_that_wait_on_it() {
        let mut board = Board::new(TIMEOUT, 0);
        let (refused, told) = called(&mut board, 0, Duration::ZERO);
        board.response(refused, 486, milliseconds(5));
        let (ringing, _) = called(&mut board, 1, Duration::ZERO);
        board.response(ringing, 180, milliseconds(5));
        called(&mut board, 2, Duration::ZERO);
        let uncalled = board.begin(due(3, Duration::ZERO), Duration::ZERO).unwrap();
        let created = (Id::new("ver_3").unwrap(), dialled());
        assert!(board.created(uncalled, created, Duration::ZERO, Duration::ZERO));

        board.disconnect(milliseconds(6));
        assert!(board.is_open(refused) && board.is_open(uncalled) && !board.is_open(ringing));
        assert!(board.invite(uncalled, milliseconds(7)).is_some());
        board.webhook(&told, milliseconds(8));
        let (tally, _) = board.take();
        assert_eq!((tally.begun, tally.ended, tally.lost, tally.codes["connection lost"]), (4, 1, 2, 2));
    }

    #[test]
    fn a_full_board_loses_what_begins_and_an_interrupted_one_all() {
        let mut board = Board::new(TIMEOUT, 0);
        let taken = (0..).map_while(|number| board.begin(due(number, Duration::ZERO), Duration::ZERO)).count();
        assert_eq!(taken, 1 << 16);
        board.interrupt(Duration::ZERO);
        assert_eq!(board.open(), 0);
        assert!(board.begin(due(0, Duration::ZERO), Duration::ZERO).is_some());
        let (tally, _) = board.take();
        assert_eq!((tally.lost, tally.codes["no_room"], tally.codes["interrupted"]), ((1 << 16) + 1, 1, 1 << 16));
    }

    #[test]
    fn what_the_node_was_not_asked_for_has_not_begun_when_the_load_stops() {
        let mut board = Board::new(TIMEOUT, 0);
        let asked = board.begin(due(0, Duration::ZERO), Duration::ZERO).unwrap();
        let waiting = board.begin(due(1, milliseconds(900)), milliseconds(1_200)).unwrap();
        assert!(board.request(asked));
        board.withdraw();
        assert_eq!(board.open(), 1);
        assert!(!board.request(waiting), "nobody asks for it any more");
        board.fail(waiting, "create error", milliseconds(1_300));
        board.interrupt(milliseconds(2_300));
        assert_eq!(board.open(), 0);
        let (tally, _) = board.take();
        assert_eq!((tally.begun, tally.ended, tally.lost), (1, 0, 1));
        assert_eq!(tally.seconds.iter().map(|second| second.begun).collect::<Vec<u64>>(), [1, 0, 0]);
        assert_eq!(tally.codes, [("interrupted".to_owned(), 1)].into());
    }

    #[test]
    fn only_so_many_ended_ones_are_remembered() {
        let mut board = Board::new(TIMEOUT, 0);
        let mut first = None;
        for number in 0..=REMEMBERED as u64 {
            let (key, id) = called(&mut board, number, Duration::ZERO);
            first.get_or_insert(id);
            board.response(key, 486, Duration::ZERO);
            board.webhook(&id, Duration::ZERO);
        }
        assert_eq!(board.ids.len(), REMEMBERED);
        board.webhook(&first.unwrap(), Duration::ZERO);
        let (tally, _) = board.take();
        assert_eq!((tally.stray, tally.codes.get("duplicate webhook")), (1, None));
    }

    /// Begins one, creates it and sends its INVITE, all at once.
    fn called(board: &mut Board, number: u64, at: Duration) -> (Key, Id) {
        let id = Id::new(&format!("ver_{number:026}")).unwrap();
        let key = board.begin(due(number, at), at).unwrap();
        assert!(board.created(key, (id, dialled()), at, at));
        assert_eq!(board.invite(key, at), Some(Pair { number, dialled: dialled() }));
        (key, id)
    }

    fn due(call: u64, at: Duration) -> Due {
        Due { call, at }
    }

    fn dialled() -> E164 {
        "+966115000050".parse().unwrap()
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }
}
