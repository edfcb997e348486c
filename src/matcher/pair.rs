//! A (phone, number) pair: its key and its state.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::boot_time::BootTime;
use super::verification::{Status, VerificationId};
use crate::call::assurance::Assurance;
use crate::e164::E164;

/// How long after its window a call is still told of as late.
pub const LATE: Duration = Duration::from_mins(1);

/// Keyed hash of a phone and the number it is to call. A dump of the index shows no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairKey(pub u128);

/// Hands a [`PairKey`] on as it is, for maps: it is a keyed hash already.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairKeyHasher(u64);

impl Hasher for PairKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64;
    }
}

impl PairKey {
    /// The key of a pair under the node's secret. Forms of one phone that reach the same subscriber have one key.
    #[must_use]
    pub fn new(secret: &[u8; 16], phone: E164, number: E164) -> Self {
        let mut hasher = SipHasher24::new_with_key(secret);
        hasher.write_u64(phone.subscriber().as_u64());
        hasher.write_u64(number.as_u64());
        Self(hasher.finish128().as_u128())
    }
}

/// What memory knows of a pending verification. The rest is in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: VerificationId,
    /// End of its window.
    pub deadline: BootTime,
    /// Place of its application in the configuration.
    pub application: u16,
    /// Whether it was begun in live mode.
    pub live: bool,
    /// Lowest level of proof that verifies it.
    pub minimum: Assurance,
    /// The number to be called.
    pub number: E164,
    /// Which settings it was begun under, counted from the start of the node.
    pub generation: u32,
}

impl Pending {
    /// Its rest after an end.
    #[must_use]
    pub const fn rest(&self, status: Status, since: BootTime, until: BootTime) -> Rest {
        Rest { id: self.id, application: self.application, live: self.live, status, since, until }
    }
}

/// A test call meets nothing but the sandbox verifications of the application that placed it; any other call meets all.
const fn is_met(application: u16, live: bool, only: Option<u16>) -> bool {
    match only {
        None => true,
        Some(tester) => !live && application == tester,
    }
}

/// The verification that a resting pair had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Its id.
    pub id: VerificationId,
    /// Place of its application in the configuration.
    pub application: u16,
    /// Whether it was begun in live mode.
    pub live: bool,
    /// How it ended.
    pub status: Status,
    /// When it ended.
    pub since: BootTime,
    /// When the pair may be used again.
    pub until: BootTime,
}

impl Rest {
    /// How long it is remembered: until the pair may be used again, and while a call can be late.
    #[must_use]
    pub fn known_until(&self) -> BootTime {
        if self.status == Status::Expired { self.until.max(self.since.plus(LATE)) } else { self.until }
    }
}

/// State of a pair; one that is in no state is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its creation is not committed: no call matches.
    Reserved(VerificationId),
    /// Waits for its call.
    Pending(Pending),
    /// A call has it, and its commit is under way.
    Claiming(Pending),
    /// Expiry, cancel or a replacement is under way.
    Ending(Pending),
    /// Cools down.
    Resting(Rest),
}

impl State {
    /// Whether a call that is meant for `only` can meet the verification of this pair.
    pub(super) const fn is_met(&self, only: Option<u16>) -> bool {
        match self {
            Self::Reserved(_) => true,
            Self::Pending(pending) | Self::Claiming(pending) | Self::Ending(pending) => {
                is_met(pending.application, pending.live, only)
            }
            Self::Resting(rest) => is_met(rest.application, rest.live, only),
        }
    }
}
