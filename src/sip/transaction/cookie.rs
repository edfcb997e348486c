//! A To-tag that carries what has to be known when it comes back (RFC 3261 19.3, 17.1.1.3).
//!
//! A refusal that leaves nothing behind can still be confirmed: the ACK brings the To-tag of the refusal, and only a
//! party that received the refusal knows it. What the confirmed call was is sealed into the tag, so that no flood of
//! INVITEs with forged addresses costs memory or crowds out a real one. The tag says nothing to whoever reads it, and
//! has the same form whether somebody waits for the call or not. Invariant: a tag opens only for the transaction and
//! the trunk that it was made for, within two epochs.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::key::{Domain, HashKey, TagParts};

/// Bytes that are sealed.
pub const PAYLOAD: usize = 32;
/// Bytes that tell whether a tag is one of ours.
const MAC: usize = 8;
/// Characters of a tag, all of which a token may hold (RFC 3261 25.1).
pub const LENGTH: usize = 54;
/// A tag opens in its own epoch and the next: after 4 to 8 s it does not.
pub const EPOCH: Duration = Duration::from_secs(4);

/// A sealed tag.
pub type Tag = [u8; LENGTH];

/// Seals `payload` for the transaction of `parts` on a trunk, in the epoch of `since_boot`. The same of both gives the
/// same tag, so that a retransmission within the epoch gets the same bytes.
#[must_use]
pub fn seal(key: &HashKey, parts: TagParts<'_>, trunk: u16, since_boot: Duration, payload: [u8; PAYLOAD]) -> Tag {
    let epoch = epoch(since_boot);
    let mut sealed = [0; PAYLOAD + MAC];
    let stream = stream(key, parts, trunk, epoch);
    for (place, (byte, mask)) in sealed.iter_mut().zip(payload.iter().zip(stream)) {
        *place = byte ^ mask;
    }
    let mac = mac(key, parts, trunk, epoch, &sealed[..PAYLOAD]);
    sealed[PAYLOAD..].copy_from_slice(&mac);
    let mut tag = [b'-'; LENGTH];
    // 40 bytes are 54 characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(sealed, &mut tag);
    tag
}

/// What `tag` carries, where this node made it for this transaction and trunk a moment ago.
#[must_use]
pub fn open(key: &HashKey, parts: TagParts<'_>, trunk: u16, since_boot: Duration, tag: &[u8]) -> Option<[u8; PAYLOAD]> {
    if tag.len() != LENGTH {
        return None;
    }
    let mut sealed = [0; PAYLOAD + MAC];
    let length = URL_SAFE_NO_PAD.decode_slice(tag, &mut sealed).ok()?;
    let now = epoch(since_boot);
    let epoch = [now, now.wrapping_sub(1)].into_iter().find(|epoch| {
        let right = mac(key, parts, trunk, *epoch, &sealed[..PAYLOAD]);
        // All eight bytes are compared, whatever the first of them is.
        length == sealed.len() && right.iter().zip(&sealed[PAYLOAD..]).fold(0, |other, (a, b)| other | (a ^ b)) == 0
    })?;
    let mut payload = [0; PAYLOAD];
    for (place, (byte, mask)) in payload.iter_mut().zip(sealed.iter().zip(stream(key, parts, trunk, epoch))) {
        *place = byte ^ mask;
    }
    Some(payload)
}

const fn epoch(since_boot: Duration) -> u64 {
    since_boot.as_secs() / EPOCH.as_secs()
}

fn stream(key: &HashKey, parts: TagParts<'_>, trunk: u16, epoch: u64) -> impl Iterator<Item = u8> {
    let block = |number: u8| {
        key.hash(Domain::CookieStream, parts, &[&trunk.to_be_bytes(), &epoch.to_be_bytes(), &[number]]).to_be_bytes()
    };
    block(0).into_iter().chain(block(1))
}

fn mac(key: &HashKey, parts: TagParts<'_>, trunk: u16, epoch: u64, sealed: &[u8]) -> [u8; MAC] {
    let hash = key.hash(Domain::CookieMac, parts, &[&trunk.to_be_bytes(), &epoch.to_be_bytes(), sealed]);
    let mut mac = [0; MAC];
    mac.copy_from_slice(&hash.to_be_bytes()[..MAC]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn parts(call_id: &'static [u8]) -> TagParts<'static> {
        TagParts { call_id, from_tag: b"f1", cseq: 7, branch: b"z9hG4bK1", host: b"10.0.0.9", port: 5070 }
    }

    #[test]
    fn a_tag_opens_for_its_own_transaction_and_trunk_alone() {
        let key = HashKey::new([7; 16]);
        let payload = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let tag = seal(&key, parts(b"c1"), 3, NOW, payload);
        assert_eq!(tag, seal(&key, parts(b"c1"), 3, NOW, payload));
        assert!(tag.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        assert_eq!(open(&key, parts(b"c1"), 3, NOW + EPOCH, &tag), Some(payload));
        assert_eq!(open(&key, parts(b"c2"), 3, NOW, &tag), None);
        assert_eq!(open(&key, parts(b"c1"), 4, NOW, &tag), None);
        assert_eq!(open(&HashKey::new([8; 16]), parts(b"c1"), 3, NOW, &tag), None);
        assert_eq!(open(&key, parts(b"c1"), 3, NOW + 2 * EPOCH, &tag), None, "too late");
    }

    #[test]
    fn a_tag_that_was_touched_does_not_open() {
        let key = HashKey::new([7; 16]);
        let tag = seal(&key, parts(b"c1"), 3, NOW, [9; PAYLOAD]);
        for place in 0..LENGTH - 1 {
            let mut other = tag;
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&key, parts(b"c1"), 3, NOW, &other), None, "{place}");
        }
        assert_eq!(open(&key, parts(b"c1"), 3, NOW, b"0011223344556677"), None);
    }
}
