//! What the machine gives this process, and what the node makes of it: caps of connections that fit the descriptors,
//! and a word at the start where memory may not do.
//!
//! Invariant: with all its tables, listeners and connections in use the node has descriptors left.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::{Configuration, SipTransport};
use crate::telemetry::machine;
use crate::verify::recent_calls::RecentCalls;
use crate::webhook::attempt::CONNECTIONS as WEBHOOK_CONNECTIONS;

/// Connections to the admin side at once: scrapers and probes.
pub const ADMIN: usize = 32;
/// No kind of connection gets fewer, however small the limit.
const LEAST: u64 = 16;

/// Standard input, output and error, and the lock of the data directory.
const OWN: u64 = 4;
/// Each event loop has a poll, a wake-up and a signal descriptor.
const EVENT_LOOP: u64 = 3;
/// The writer's connection and those of the readers, each with the database, its log and the log's index.
const DATABASE: u64 = 5 * 3;
/// Look-ups of names, certificates, files that are read now and then.
const SPARE: u64 = 64;

/// Bytes of memory that a pending verification may need: its entry in the index, its place among the deadlines and in
/// its phone's limits, each in a table that has just doubled.
const PENDING: u64 = 400;
/// Bytes of memory that the node needs beside its large tables: page caches of the database, queues, buffers.
const REST: u64 = 192 << 20;

/// Descriptors that the node would like to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// What does not change with the load, and what webhooks may need.
    pub fixed: u64,
    /// Connections to the API.
    pub api: u64,
    /// SIP connections over TCP, of all listeners together.
    pub sip: u64,
}

/// Connections that there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// To the API.
    pub api: usize,
    /// SIP over TCP, of all listeners together.
    pub sip: usize,
    /// Of both together.
    pub all: usize,
}

impl Wish {
    /// What this configuration can need.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Self {
        let workers = configuration.sip.workers as u64;
        let streams = configuration.sip.listen.iter().filter(|one| one.transport == SipTransport::Tcp).count() as u64;
        let sockets = workers * (configuration.sip.listen.len() as u64 - streams) + streams;
        let http_listeners = 2;
        let loops = (1 + workers) * EVENT_LOOP;
        let webhooks = configuration.webhooks.len() as u64 * WEBHOOK_CONNECTIONS as u64;
        let fixed = OWN + loops + sockets + http_listeners + ADMIN as u64 + DATABASE + SPARE + webhooks;
        let sip = streams * configuration.sip.tcp.connections as u64;
        Self { fixed, api: configuration.api.connections as u64, sip }
    }

    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.fixed + self.api + self.sip
    }

    /// The caps that fit `limit` descriptors: the wish where it fits. Else both kinds share what there is, so that one
    /// may have most of it while the other is quiet; at least 16 each (none where none is wished).
    #[must_use]
    pub fn within(&self, limit: u64) -> Caps {
        let least = self.api.min(LEAST) + self.sip.min(LEAST);
        let all = limit.saturating_sub(self.fixed).min(self.api + self.sip).max(least);
        // Neither kind crowds out the other: a quarter is left to it, as far as it wants one.
        let beside = |wish: u64, other: u64| (all - other.min(all / 4)).min(wish).max(wish.min(LEAST));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Caps { api: count(beside(self.api, self.sip)), sip: count(beside(self.sip, self.api)), all: count(all) }
    }
}

/// Bytes of memory that this configuration can need.
#[must_use]
pub fn memory_needed(configuration: &Configuration) -> u64 {
    let recent = RecentCalls::bytes(configuration.sip.recent_calls) as u64;
    REST + recent + configuration.verify.max_pending.saturating_mul(PENDING)
}

/// Takes all descriptors that the system grants and gives the caps that fit; says where something is too small.
pub fn settle(configuration: &Configuration) -> Caps {
    let wish = Wish::of(configuration);
    let limit = raise_descriptor_limit();
    let caps = wish.within(limit);
    // With half of it each kind may still have most of what it wants, while the other is quiet.
    if 2 * (caps.all as u64) < wish.api + wish.sip {
        tracing::warn!(
            limit,
            needed = wish.total(),
            api_connections = caps.api,
            sip_connections = caps.sip,
            "few file descriptors: fewer connections are taken at once; raise LimitNOFILE or `ulimit -Hn`"
        );
    }
    let needed = memory_needed(configuration);
    if let Some(memory) = machine::memory().filter(|memory| memory.bytes < needed) {
        tracing::warn!(
            memory = memory.bytes,
            needed,
            by_control_group = memory.by_control_group,
            "as many pending verifications as store.max_pending allows may not fit into memory; lower it"
        );
    }
    caps
}

/// Raises the limit in force to the hard one and gives what is in force then.
fn raise_descriptor_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of file descriptors stays");
    }
    machine::descriptor_limits().0
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { fixed: 300, api: 4096, sip: 1024 };

    #[test]
    fn what_fits_is_given_in_full() {
        for limit in [WISH.total(), 65_536, u64::MAX] {
            assert_eq!(WISH.within(limit), Caps { api: 4096, sip: 1024, all: 5120 }, "{limit}");
        }
    }

    #[test]
    fn what_does_not_fit_is_shared_and_never_passes_the_limit() {
        assert_eq!(WISH.within(300 + 2560), Caps { api: 1920, sip: 1024, all: 2560 });
        for limit in 400..6_000 {
            let caps = WISH.within(limit);
            let used = WISH.fixed + caps.all as u64;
            assert!(used <= limit, "{limit}: {caps:?}");
            assert!(caps.api < caps.all && caps.sip < caps.all, "{limit}: {caps:?}");
        }
    }

    #[test]
    fn a_tiny_limit_leaves_a_few_of_each_kind_that_is_wished() {
        assert_eq!(WISH.within(0), Caps { api: 24, sip: 24, all: 32 });
        assert_eq!(Wish { sip: 0, ..WISH }.within(10), Caps { api: 16, sip: 0, all: 16 });
        assert_eq!(Wish { api: 0, sip: 0, ..WISH }.within(10), Caps { api: 0, sip: 0, all: 0 });
    }
}
