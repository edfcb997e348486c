//! Keys of transactions and calls, and the To-tag of a stateless response.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};

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
        if request.via.has_magic_cookie() {
            return TransactionKey(self.via(TagParts::of(request)));
        }
        let mut hash = self.begin(Domain::Transaction);
        hash.part(request.call_id);
        hash.part(&request.cseq.number.to_be_bytes());
        hash.part(request.from_tag.unwrap_or(b""));
        hash.part(request.uri);
        hash.part(request.via.raw);
        TransactionKey(hash.finish())
    }

    /// All three of a request: its call, its transaction and the To-tag of its response.
    #[must_use]
    pub fn hashes(&self, request: &Request<'_>) -> Hashes {
        let (parts, transaction, call) = (TagParts::of(request), self.transaction(request), self.call(request));
        let via = if request.via.has_magic_cookie() { transaction.0 } else { self.via(parts) };
        Hashes { call, transaction, tag: self.tag(call, via, parts.cseq) }
    }

    /// The same for every retransmission and fork of one call: Call-ID and From-tag (RFC 3261 8.2.2.2).
    #[must_use]
    pub fn call(&self, request: &Request<'_>) -> u64 {
        self.call_of(TagParts::of(request))
    }

    /// The To-tag of a stateless response (RFC 3261 8.2.7): the same for a request, its retransmissions and its
    /// CANCEL, before and after a restart. 64 bits.
    #[must_use]
    pub fn to_tag(&self, parts: TagParts<'_>) -> u64 {
        self.tag(self.call_of(parts), self.via(parts), parts.cseq)
    }

    fn tag(&self, call: u64, via: u128, cseq: u32) -> u64 {
        let mut hash = self.begin(Domain::Tag);
        hash.write(&call.to_be_bytes());
        hash.write(&via.to_be_bytes());
        hash.write(&cseq.to_be_bytes());
        low(hash.finish())
    }

    fn call_of(&self, parts: TagParts<'_>) -> u64 {
        let mut hash = self.begin(Domain::Call);
        hash.part(parts.call_id);
        hash.part(parts.from_tag);
        low(hash.finish())
    }

    fn via(&self, parts: TagParts<'_>) -> u128 {
        let mut hash = self.begin(Domain::Via);
        hash.part(parts.branch);
        hash.part(parts.host);
        hash.part(&parts.port.to_be_bytes());
        hash.finish()
    }

    /// What tells one connection's transactions from another's.
    #[must_use]
    pub fn way(&self, remote: std::net::SocketAddr) -> u128 {
        let mut hash = self.begin(Domain::Way);
        match remote.ip() {
            std::net::IpAddr::V4(ip) => hash.part(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash.part(&ip.octets()),
        }
        hash.part(&remote.port().to_be_bytes());
        hash.finish()
    }

    /// The hash of a transaction's parts and what else belongs to it, as strong as a MAC has to be.
    pub(super) fn hash(&self, domain: Domain, parts: TagParts<'_>, more: &[&[u8]]) -> u128 {
        let mut hash = Hash::new(SipHasher24::new_with_key(&self.0), domain);
        hash.parts(parts, more);
        hash.finish()
    }

    /// Begins a hash that is a key of a table: nobody may be able to choose messages that fall together.
    fn begin(&self, domain: Domain) -> Hash<SipHasher13> {
        Hash::new(SipHasher13::new_with_key(&self.0), domain)
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
    Via = 7,
}

/// Key of a server transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionKey(pub u128);

/// See [`HashKey::hashes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashes {
    /// [`HashKey::call`].
    pub call: u64,
    /// [`HashKey::transaction`].
    pub transaction: TransactionKey,
    /// [`HashKey::to_tag`].
    pub tag: u64,
}

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
            from_tag: request.from_tag.unwrap_or(b""),
            cseq: request.cseq.number,
            branch: request.via.branch.unwrap_or(b""),
            host: request.via.host,
            port: request.via.port.unwrap_or(0),
        }
    }
}

/// A hash in the making. Parts are gathered, for many small writes cost more than the hash itself.
struct Hash<H> {
    hasher: H,
    gathered: [u8; GATHERED],
    length: usize,
}

/// Bytes that are gathered: the parts of most calls together.
const GATHERED: usize = 192;

impl<H: Hasher> Hash<H> {
    fn new(hasher: H, domain: Domain) -> Self {
        let mut hash = Self { hasher, gathered: [0; GATHERED], length: 0 };
        hash.write(&[domain as u8]);
        hash
    }

    /// Length first, so that no two lists of parts run together to the same bytes.
    fn part(&mut self, bytes: &[u8]) {
        self.write(&bytes.len().to_be_bytes());
        self.write(bytes);
    }

    fn parts(&mut self, parts: TagParts<'_>, more: &[&[u8]]) {
        for part in [parts.call_id, parts.from_tag, parts.branch, parts.host] {
            self.part(part);
        }
        self.part(&parts.port.to_be_bytes());
        self.part(&parts.cseq.to_be_bytes());
        for part in more {
            self.part(part);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(place) = self.gathered.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        } else {
            self.flush();
            self.hasher.write(bytes);
        }
    }

    fn flush(&mut self) {
        self.hasher.write(&self.gathered[..self.length]);
        self.length = 0;
    }
}

impl<H: Hasher + Hasher128> Hash<H> {
    fn finish(mut self) -> u128 {
        self.flush();
        self.hasher.finish128().as_u128()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half of a hash is a hash")]
const fn low(hash: u128) -> u64 {
    hash as u64
}
