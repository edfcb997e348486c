//! When calls without an answer are looked at again: Timer A over UDP, and the end (RFC 3261 17.1.1.2).
//!
//! All calls have the same pauses, so each pause is a queue in the order of sending, and no heap is needed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::load::slab::Key;

/// T1, the round trip that RFC 3261 17.1.1.1 assumes.
const T1: Duration = Duration::from_millis(500);

/// The moments at which unanswered calls are looked at.
#[derive(Debug)]
pub(crate) struct Timers {
    /// For each look, how long after the sending it comes; the last is the end.
    looks: Vec<Duration>,
    queues: Vec<VecDeque<(Duration, Key)>>,
}

/// What is to be done about a call that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Send its INVITE again.
    Again(Key),
    /// Give it up.
    End(Key),
}

impl Timers {
    /// For a transport that loses messages: after T1, and after twice the pause before each, until `timeout`.
    pub(crate) fn unreliable(timeout: Duration) -> Self {
        let mut looks = Vec::new();
        let (mut pause, mut at) = (T1, T1);
        while at < timeout {
            looks.push(at);
            pause = pause.saturating_mul(2);
            at = at.saturating_add(pause);
        }
        looks.push(timeout);
        Self::with(looks)
    }

    /// For a transport that loses nothing: the end alone.
    pub(crate) fn reliable(timeout: Duration) -> Self {
        Self::with(vec![timeout])
    }

    fn with(looks: Vec<Duration>) -> Self {
        let queues = looks.iter().map(|_| VecDeque::new()).collect();
        Self { looks, queues }
    }

    /// A call's INVITE was sent; `now` never goes back.
    pub(crate) fn sent(&mut self, now: Duration, key: Key) {
        self.queues[0].push_back((now, key));
    }

    /// The next look that is due. Calls that are not in flight any more are forgotten on the way.
    pub(crate) fn due(&mut self, now: Duration, mut is_open: impl FnMut(Key) -> bool) -> Option<Look> {
        for step in 0..self.queues.len() {
            while let Some(&(sent, key)) = self.queues[step].front() {
                let open = is_open(key);
                if open && sent + self.looks[step] > now {
                    break;
                }
                self.queues[step].pop_front();
                if open {
                    let Some(next) = self.queues.get_mut(step + 1) else { return Some(Look::End(key)) };
                    next.push_back((sent, key));
                    return Some(Look::Again(key));
                }
            }
        }
        None
    }

    /// When the next look comes, at the earliest.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let fronts = self.queues.iter().zip(&self.looks);
        fronts.filter_map(|(queue, look)| queue.front().map(|(sent, _)| *sent + *look)).min()
    }

    /// Forgets all calls.
    pub(crate) fn clear(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_invite_is_sent_again_after_doubling_pauses_and_then_given_up() {
        let mut timers = Timers::unreliable(Duration::from_secs(5));
        let key = key(1);
        timers.sent(milliseconds(100), key);
        for (at, look) in [(600, Look::Again(key)), (1_600, Look::Again(key)), (3_600, Look::Again(key))] {
            assert_eq!(timers.wake(), Some(milliseconds(at)));
            assert_eq!(timers.due(milliseconds(at - 1), |_| true), None);
            assert_eq!(timers.due(milliseconds(at), |_| true), Some(look));
        }
        assert_eq!(timers.due(milliseconds(5_099), |_| true), None);
        assert_eq!(timers.due(milliseconds(5_100), |_| true), Some(Look::End(key)));
        assert_eq!((timers.due(Duration::MAX, |_| true), timers.wake()), (None, None));
    }

    #[test]
    fn answered_calls_are_forgotten_before_their_time() {
        let mut timers = Timers::unreliable(Duration::from_secs(5));
        for place in 0..3 {
            timers.sent(milliseconds(place.into()), key(place));
        }
        assert_eq!(timers.due(milliseconds(10), |key| key.place == 2), None);
        assert_eq!(timers.wake(), Some(milliseconds(502)));
        timers.clear();
        assert_eq!(timers.wake(), None);
    }

    #[test]
    fn nothing_is_sent_again_over_a_reliable_transport_or_within_a_short_timeout() {
        for mut timers in [Timers::reliable(milliseconds(300)), Timers::unreliable(milliseconds(300))] {
            timers.sent(Duration::ZERO, key(0));
            assert_eq!(timers.due(milliseconds(300), |_| true), Some(Look::End(key(0))));
        }
    }

    fn key(place: u16) -> Key {
        Key { place, generation: 0 }
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }
}
