//! What tells the calls of a load from each other: Call-ID, branch and From-tag.
//!
//! Pure: the same seed, call and place give the same identifiers, so that a call need not keep them. Two calls of one
//! run never begin at the same random state, and two runs have seeds of their own (RFC 3261 8.1.1.4, 8.1.1.7, 19.3).

use crate::load::slab::{KEY, Key};

/// What every branch begins with (RFC 3261 8.1.1.7).
pub(crate) const COOKIE: &[u8] = b"z9hG4bK";
/// Bytes of a Call-ID, of a branch behind its cookie, and of a tag; each from and to.
const LENGTHS: [(usize, usize); 3] = [(20, 60), (16, 40), (8, 20)];
/// The same where all calls have equal ones.
const EQUAL: [usize; 3] = [36, 24, 10];
/// Longest host that is put behind a Call-ID.
const MAX_HOST: usize = 24;
/// Bytes of the longest of all three.
const ROOM: usize = 60 + COOKIE.len() + 40 + 20;

/// Letters of identifiers: all may stand in a token and in a Call-ID (RFC 3261 25.1).
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";

/// How long the identifiers of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// As real traffic has them: from call to call others.
    Varied,
    /// The same in each call.
    Equal,
}

/// The identifiers of one call.
pub(crate) struct Identifiers {
    bytes: [u8; ROOM],
    call_id: usize,
    branch: usize,
    tag: usize,
}

impl Identifiers {
    /// Those of call `call`, kept at `key`. `host` is put behind some of the Call-IDs.
    pub(crate) fn new(seed: u64, call: u64, key: Key, lengths: Lengths, host: &[u8]) -> Self {
        // Another state for every call, for the mixing is one to one.
        let mut random = Random(mix(seed.wrapping_add(call)));
        let [call_id, branch, tag] = match lengths {
            Lengths::Equal => EQUAL,
            Lengths::Varied => {
                let mut bits = random.next();
                LENGTHS.map(|(from, to)| {
                    let length = from + bounded(bits & 0xffff, to - from + 1);
                    bits >>= 16;
                    length
                })
            }
        };
        let (branch, tag) = (call_id + COOKIE.len() + branch, call_id + COOKIE.len() + branch + tag);
        let mut bytes = [0; ROOM];
        random.fill(&mut bytes[..tag]);
        let at_host = call_id.saturating_sub(host.len() + 1);
        if lengths == Lengths::Varied && host.len() <= MAX_HOST && at_host >= 10 && random.next() & 1 == 0 {
            bytes[at_host] = b'@';
            bytes[at_host + 1..call_id].copy_from_slice(host);
        }
        bytes[call_id..call_id + COOKIE.len()].copy_from_slice(COOKIE);
        key.write(&mut bytes[call_id + COOKIE.len()..call_id + COOKIE.len() + KEY]);
        Self { bytes, call_id, branch, tag }
    }

    pub(crate) fn call_id(&self) -> &[u8] {
        &self.bytes[..self.call_id]
    }

    /// With its cookie.
    pub(crate) fn branch(&self) -> &[u8] {
        &self.bytes[self.call_id..self.branch]
    }

    pub(crate) fn tag(&self) -> &[u8] {
        &self.bytes[self.branch..self.tag]
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): as good as identifiers need, and a few instructions.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(10) {
            let mut bits = self.next();
            for byte in chunk {
                *byte = LETTERS[usize::from((bits & 63) as u8)];
                bits >>= 6;
            }
        }
    }
}

const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// A number below `bound` from 16 random bits.
fn bounded(bits: u64, bound: usize) -> usize {
    (usize::try_from(bits).unwrap_or(0) * bound) >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const HOST: &[u8] = b"192.0.2.1";

    #[test]
    fn identifiers_vary_within_their_bounds_and_never_repeat() {
        let (mut call_ids, mut branches, mut lengths) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut hosts = 0;
        for call in 0..10_000 {
            let identifiers = Identifiers::new(7, call, Key { place: 3, generation: 9 }, Lengths::Varied, HOST);
            let (call_id, branch, tag) = (identifiers.call_id(), identifiers.branch(), identifiers.tag());
            assert!((20..=60).contains(&call_id.len()) && (8..=20).contains(&tag.len()));
            assert!((16..=40).contains(&(branch.len() - COOKIE.len())) && branch.starts_with(COOKIE));
            assert_eq!(&branch[COOKIE.len()..COOKIE.len() + KEY], b"000300000009");
            hosts += usize::from(call_id.ends_with(b"@192.0.2.1"));
            lengths.insert(call_id.len() + branch.len() + tag.len());
            assert!(call_ids.insert(call_id.to_vec()) && branches.insert(branch.to_vec()));
        }
        assert!((2_000..8_000).contains(&hosts), "{hosts}");
        assert!(lengths.len() > 40, "{}", lengths.len());
    }

    #[test]
    fn equal_lengths_are_equal_and_the_same_call_has_the_same_identifiers() {
        let of = |seed, call| {
            let identifiers = Identifiers::new(seed, call, Key { place: 0, generation: 0 }, Lengths::Equal, HOST);
            [identifiers.call_id(), identifiers.branch(), identifiers.tag()].map(<[u8]>::to_vec)
        };
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(1, 3));
        assert_ne!(of(1, 2), of(2, 2));
        for call in 0..1_000 {
            assert_eq!(of(1, call).map(|text| text.len()), [36, 24 + COOKIE.len(), 10]);
        }
    }
}
