//! Entries and the chain that they are: each one's text holds the hash of the text before.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::kind::Kind;

/// How far a log has come: its last entry and that one's hash. A log begins behind entry 0, whose hash is all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    /// Number of the last entry.
    pub seq: u64,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
}

/// An entry that was put behind a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number: one more than the one before.
    pub seq: u64,
    /// The entry: a JSON object in one line, with the hash of the one before.
    pub text: String,
    /// SHA-256 of `text`.
    pub hash: [u8; 32],
}

impl Chain {
    /// Puts an entry behind the last one. `data` is a JSON object.
    pub fn append(&mut self, at: SystemTime, kind: Kind, data: &str) -> Link {
        let (seq, previous) = (self.seq + 1, hex::encode(self.hash));
        let (at, kind) = (humantime::format_rfc3339_millis(at), kind.as_str());
        let text = format!(
            "{{\"seq\":{seq},\"at\":\"{at}\",\"kind\":\"{kind}\",\"data\":{data},\"previous\":\"{previous}\"}}"
        );
        let hash = hash(&text);
        *self = Self { seq, hash };
        Link { seq, text, hash }
    }
}

/// SHA-256 of an entry's text.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// An entry as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: u64,
    /// When, RFC 3339 UTC with milliseconds.
    pub at: &'a str,
    /// What kind.
    pub kind: &'a str,
    /// What it tells, a JSON object.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Hash of the entry before, in hexadecimal.
    pub previous: &'a str,
}

impl<'a> Entry<'a> {
    /// Reads an entry's text.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Hash of the entry before.
    #[must_use]
    pub fn previous(&self) -> Option<[u8; 32]> {
        hex::decode(self.previous).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_entry_holds_its_place_and_the_hash_before() {
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_125);
        let mut chain = Chain::default();
        let first = chain.append(at, Kind::NodeStarted, "{}");
        assert_eq!(
            first.text,
            format!(
                r#"{{"seq":1,"at":"2025-11-24T16:00:00.125Z","kind":"node.started","data":{{}},"previous":"{}"}}"#,
                "0".repeat(64)
            )
        );
        let second = chain.append(at, Kind::KeyUsed, r#"{"key":"a"}"#);
        assert_eq!(chain, Chain { seq: 2, hash: second.hash });
        let read = Entry::parse(&second.text).unwrap();
        assert_eq!((read.seq, read.kind, read.data.get()), (2, "key.used", r#"{"key":"a"}"#));
        assert_eq!(read.previous(), Some(first.hash));
        assert_eq!(first.hash, hash(&first.text));
    }
}
