//! Keys of transactions and calls, and the To-tag of a stateless response.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::sip::message::Request;

/// The node's secret for hashes, 128 bits. It outlives restarts, so that tags and keys stay what they were.
#[derive(Clone)]
pub struct HashKey([u8; 16]);

impl HashKey {
    /// Takes random bytes that are kept with the node's data.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Finds the server transaction of an INVITE and its CANCEL: branch and sent-by of the topmost Via; for peers of
    /// RFC 2543 Call-ID, CSeq number, From-tag, Request-URI and that Via (RFC 3261 17.2.3).
    #[must_use]
    pub fn transaction(&self, request: &Request<'_>) -> TransactionKey {
        let mut hash = Hash::new(self, Domain::Transaction as u8);
        if request.via.has_magic_cookie() {
            hash.part(request.via.branch().unwrap_or(b""));
            hash.part(request.via.host);
            hash.part(&request.via.port.unwrap_or(0).to_be_bytes());
        } else {
            hash.part(request.call_id);
            hash.part(&request.cseq.number.to_be_bytes());
            hash.part(request.from.tag().unwrap_or(b""));
            hash.part(request.uri);
            hash.part(request.via.raw);
        }
        TransactionKey(hash.finish())
    }

    /// The same for every retransmission and fork of one call: Call-ID and From-tag (RFC 3261 8.2.2.2).
    #[must_use]
    pub fn call(&self, request: &Request<'_>) -> u64 {
        let mut hash = Hash::new(self, Domain::Call as u8);
        hash.part(request.call_id);
        hash.part(request.from.tag().unwrap_or(b""));
        low(hash.finish())
    }

    /// The To-tag of a stateless response (RFC 3261 8.2.7): the same for a request, its retransmissions and its
    /// CANCEL, before and after a restart. 64 bits.
    #[must_use]
    pub fn to_tag(&self, parts: TagParts<'_>) -> u64 {
        low(self.hash(Domain::Tag, parts, &[]))
    }

    /// What tells one connection's transactions from another's.
    #[must_use]
    pub fn way(&self, remote: std::net::SocketAddr) -> u128 {
        let mut hash = Hash::new(self, Domain::Way as u8);
        match remote.ip() {
            std::net::IpAddr::V4(ip) => hash.part(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash.part(&ip.octets()),
        }
        hash.part(&remote.port().to_be_bytes());
        hash.finish()
    }

    /// The hash of a transaction's parts and what else belongs to it.
    pub(super) fn hash(&self, domain: Domain, parts: TagParts<'_>, more: &[&[u8]]) -> u128 {
        let mut hash = Hash::new(self, domain as u8);
        for part in [parts.call_id, parts.from_tag, parts.branch, parts.host] {
            hash.part(part);
        }
        hash.part(&parts.port.to_be_bytes());
        hash.part(&parts.cseq.to_be_bytes());
        for part in more {
            hash.part(part);
        }
        hash.finish()
    }
}

/// What a hash is for: those of one domain are no use in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Domain {
    Transaction = 1,
    Call = 2,
    Tag = 3,
    CookieStream = 4,
    CookieMac = 5,
    Way = 6,
}

/// Key of a server transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionKey(pub u128);

/// What a To-tag is made from; parts that a broken request lacks are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagParts<'a> {
    /// Call-ID.
    pub call_id: &'a [u8],
    /// Tag of From.
    pub from_tag: &'a [u8],
    /// CSeq number.
    pub cseq: u32,
    /// Branch of the topmost Via.
    pub branch: &'a [u8],
    /// Host of sent-by in the topmost Via.
    pub host: &'a [u8],
    /// Its port, 0 where none is given.
    pub port: u16,
}

impl<'a> TagParts<'a> {
    /// The parts of a request; an ACK has those of its INVITE (RFC 3261 17.1.1.3).
    #[must_use]
    pub fn of(request: &Request<'a>) -> Self {
        Self {
            call_id: request.call_id,
            from_tag: request.from.tag().unwrap_or(b""),
            cseq: request.cseq.number,
            branch: request.via.branch().unwrap_or(b""),
            host: request.via.host,
            port: request.via.port.unwrap_or(0),
        }
    }
}

struct Hash(SipHasher24);

impl Hash {
    fn new(key: &HashKey, domain: u8) -> Self {
        let mut hasher = SipHasher24::new_with_key(&key.0);
        hasher.write_u8(domain);
        Self(hasher)
    }

    /// Length first, so that no two lists of parts run together to the same bytes.
    fn part(&mut self, bytes: &[u8]) {
        self.0.write_usize(bytes.len());
        self.0.write(bytes);
    }

    fn finish(self) -> u128 {
        self.0.finish128().as_u128()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half of a hash is a hash")]
const fn low(hash: u128) -> u64 {
    hash as u64
}
