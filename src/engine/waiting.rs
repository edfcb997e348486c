//! Calls that wait for their commit: what is needed to answer them, found by transaction from any worker.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::call::event::TrunkId;
use crate::call::trunk::Limits;
use crate::matcher::boot_time::BootTime;
use crate::sip::flow::Flow;
use crate::sip::transaction::key::TransactionKey;
use crate::verify::Held;
use crate::verify::claims::MAX_WAITING;

/// After this the peer gets 503: it may try another way, and the claim goes on without it.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Who answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The UDP loop of this number, which looks for its calls in the table.
    Loop(usize),
    /// The connection that the call came on, which has a list of its own.
    Connection,
}

/// An INVITE that has no answer yet.
pub struct WaitingCall {
    /// The INVITE as it came.
    pub request: Box<[u8]>,
    /// The way it came.
    pub flow: Flow,
    /// The trunk it came over.
    pub trunk: TrunkId,
    /// Whether the caller hung up meanwhile.
    pub canceled: bool,
    /// When it came, since boot.
    pub since: BootTime,
    /// When it came, for measuring.
    pub received: Instant,
    /// Who will answer it.
    pub owner: Owner,
    /// The name under which its answer is remembered.
    pub answered: u64,
    /// Whether its trunk has a cap on calls that wait.
    pub capped: bool,
}

impl fmt::Debug for WaitingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request names the caller.
        f.debug_struct("WaitingCall")
            .field("trunk", &self.trunk)
            .field("canceled", &self.canceled)
            .finish_non_exhaustive()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct WaitingCalls {
    calls: DashMap<TransactionKey, WaitingCall>,
    /// How many wait of each trunk that has a cap, and of each of its peers.
    counts: DashMap<(TrunkId, Option<IpAddr>), u32>,
}

impl WaitingCalls {
    /// Keeps a call, unless its transaction is kept already or there is no room.
    pub fn hold(&self, key: TransactionKey, call: impl FnOnce() -> WaitingCall) -> Held {
        if self.calls.len() >= MAX_WAITING {
            return Held::Full;
        }
        match self.calls.entry(key) {
            Entry::Occupied(_) => Held::Already,
            Entry::Vacant(entry) => {
                let call = call();
                if call.capped {
                    for key in counted(&call) {
                        *self.counts.entry(key).or_insert(0) += 1;
                    }
                }
                entry.insert(call);
                Held::Kept
            }
        }
    }

    /// Whether a trunk, or a peer of it, has as many calls waiting as it may. Two that come at once may be one more.
    pub fn is_at_cap(&self, trunk: TrunkId, peer: IpAddr, limits: &Limits) -> bool {
        let reached = |key, cap: u32| cap > 0 && self.counts.get(&key).is_some_and(|count| *count >= cap);
        reached((trunk, None), limits.concurrent) || reached((trunk, Some(peer)), limits.peer_concurrent)
    }

    /// Takes a call out, to be answered.
    pub fn take(&self, key: TransactionKey) -> Option<WaitingCall> {
        let call = self.calls.remove(&key).map(|(_, call)| call)?;
        if call.capped {
            for key in counted(&call) {
                if let Entry::Occupied(mut count) = self.counts.entry(key) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        }
        Some(call)
    }

    /// Notes that the caller hung up; whether the call waits.
    pub fn cancel(&self, key: TransactionKey) -> bool {
        // Most CANCELs find nothing waiting at all.
        !self.calls.is_empty()
            && self.calls.get_mut(&key).is_some_and(|mut call| {
                call.canceled = true;
                true
            })
    }

    /// The name under which the answer to a call that waits will be remembered.
    pub fn answered(&self, key: TransactionKey) -> Option<u64> {
        self.calls.get(&key).map(|call| call.answered)
    }

    /// Whether a transaction waits.
    pub fn has(&self, key: TransactionKey) -> bool {
        self.calls.contains_key(&key)
    }

    /// Whether the loop has calls to answer.
    #[must_use]
    pub fn has_any(&self, of_loop: usize) -> bool {
        self.calls.iter().any(|call| call.owner == Owner::Loop(of_loop))
    }

    /// Takes out the calls of the loop that have waited too long.
    pub fn take_overdue(&self, of_loop: usize, now: BootTime) -> Vec<WaitingCall> {
        // Iterating allocates, and mostly nobody waits.
        if self.calls.is_empty() {
            return Vec::new();
        }
        let overdue = |call: &WaitingCall| call.owner == Owner::Loop(of_loop) && now.since(call.since) >= PATIENCE;
        let keys: Vec<_> = self.calls.iter().filter(|call| overdue(call)).map(|call| *call.key()).collect();
        keys.into_iter().filter_map(|key| self.take(key)).collect()
    }
}

fn counted(call: &WaitingCall) -> [(TrunkId, Option<IpAddr>); 2] {
    [(call.trunk, None), (call.trunk, Some(call.flow.remote.ip()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::flow::Transport;

    fn call(owner: Owner, since: u64) -> WaitingCall {
        let address = "127.0.0.1:5060".parse().unwrap();
        WaitingCall {
            request: Box::default(),
            flow: Flow { transport: Transport::Udp, local: address, remote: address },
            trunk: TrunkId(0),
            canceled: false,
            since: BootTime(since),
            received: super::super::clock::instant(),
            owner,
            answered: 0,
            capped: true,
        }
    }

    #[test]
    fn a_transaction_is_kept_once_and_taken_once() {
        let waiting = WaitingCalls::default();
        let key = TransactionKey(1);
        assert!(!waiting.cancel(key));
        assert_eq!(waiting.hold(key, || call(Owner::Loop(0), 0)), Held::Kept);
        assert_eq!(waiting.hold(key, || call(Owner::Loop(0), 0)), Held::Already);
        assert!(waiting.cancel(key));
        assert!(waiting.take(key).unwrap().canceled);
        assert!(waiting.take(key).is_none());
    }

    #[test]
    fn calls_that_wait_are_counted_by_trunk_and_peer_until_they_are_taken() {
        let waiting = WaitingCalls::default();
        let (trunk, peer) = (TrunkId(0), "127.0.0.1".parse().unwrap());
        let caps = Limits { concurrent: 2, peer_concurrent: 2, ..Limits::default() };
        for key in 1..3 {
            assert!(!waiting.is_at_cap(trunk, peer, &caps));
            waiting.hold(TransactionKey(key), || call(Owner::Loop(0), 0));
        }
        assert!(waiting.is_at_cap(trunk, peer, &caps));
        assert!(waiting.is_at_cap(trunk, peer, &Limits { concurrent: 0, ..caps }));
        assert!(!waiting.is_at_cap(trunk, "127.0.0.2".parse().unwrap(), &Limits { concurrent: 0, ..caps }));
        waiting.take(TransactionKey(1));
        assert!(!waiting.is_at_cap(trunk, peer, &caps));
        waiting.take(TransactionKey(2));
        assert!(waiting.counts.is_empty());
    }

    #[test]
    fn a_loop_gives_up_its_own_overdue_calls_only() {
        let waiting = WaitingCalls::default();
        let (one, other) = (Owner::Loop(0), Owner::Loop(1));
        for (key, owner, since) in [(1, one, 0), (2, one, 3_000), (3, other, 0), (4, Owner::Connection, 0)] {
            waiting.hold(TransactionKey(key), || call(owner, since));
        }
        assert_eq!(waiting.take_overdue(0, BootTime(4_000)).len(), 1);
        assert!(waiting.has_any(0) && waiting.has_any(1));
        assert_eq!(waiting.take_overdue(1, BootTime(4_000)).len(), 1);
        assert!(!waiting.has_any(1));
    }
}
