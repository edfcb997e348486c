//! What an endpoint's messages are signed with: a shared secret (`v1`), or a key of which the receiver has the public
//! part alone (`v1a`, Ed25519).

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::signature::{Ed25519KeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretSlice};

use super::signature::{SecretError, mac, parse_secret};

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// Bytes of a seed (RFC 8032 5.1.5). Some tools write the public key behind it.
const SEED: usize = 32;

/// One of an endpoint's `secrets`.
pub enum SigningKey {
    /// HMAC-SHA256, 24 to 64 bytes.
    Hmac(SecretSlice<u8>),
    /// Ed25519.
    Ed25519 {
        /// What the pair is made from.
        seed: SecretSlice<u8>,
        /// What signs.
        pair: Ed25519KeyPair,
    },
}

impl SigningKey {
    /// Reads a secret: `whsec_` and the base64 of 24 to 64 bytes, or `whsk_` and the base64 of a seed of 32 bytes, with
    /// or without the public key behind it.
    ///
    /// # Errors
    /// Each [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let Some(encoded) = text.strip_prefix(PRIVATE_PREFIX) else { return parse_secret(text).map(Self::Hmac) };
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?;
        let (seed, public) = bytes.split_at_checked(SEED).ok_or(SecretError::Ed25519(bytes.len()))?;
        let key = Self::from_seed(seed).ok_or(SecretError::Ed25519(bytes.len()))?;
        match &key {
            Self::Ed25519 { pair, .. } if public.is_empty() || public == pair.public_key().as_ref() => Ok(key),
            _ => Err(SecretError::Ed25519(bytes.len())),
        }
    }

    /// Makes a key for Ed25519: the text that [`SigningKey::parse`] reads, and the public part.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn new_ed25519() -> Result<(String, String), getrandom::Error> {
        let mut seed = [0; SEED];
        getrandom::fill(&mut seed)?;
        let public = Self::from_seed(&seed).and_then(|key| key.public()).unwrap_or_default();
        Ok((format!("{PRIVATE_PREFIX}{}", BASE64_STANDARD.encode(seed)), public))
    }

    /// `whpk_` and the base64 of the public key, for the receiver; none of a shared secret.
    #[must_use]
    pub fn public(&self) -> Option<String> {
        match self {
            Self::Hmac(_) => None,
            Self::Ed25519 { pair, .. } => {
                Some(format!("{PUBLIC_PREFIX}{}", BASE64_STANDARD.encode(pair.public_key().as_ref())))
            }
        }
    }

    fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self::Ed25519 { seed: seed.to_vec().into(), pair })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Hmac(secret) | Self::Ed25519 { seed: secret, .. } => secret.expose_secret(),
        }
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8], header: &mut String) {
        match self {
            Self::Hmac(secret) => {
                header.push_str("v1,");
                BASE64_STANDARD.encode_string(mac(secret, id, timestamp, body), header);
            }
            Self::Ed25519 { pair, .. } => {
                header.push_str("v1a,");
                let message = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
                BASE64_STANDARD.encode_string(pair.sign(&message), header);
            }
        }
    }
}

/// The `webhook-signature` of a message: one signature for each key, in their order, separated by spaces. `timestamp` is
/// in seconds since 1970 UTC.
#[must_use]
pub fn sign_with(keys: &[SigningKey], id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut header = String::with_capacity(keys.len() * 96);
    for key in keys {
        if !header.is_empty() {
            header.push(' ');
        }
        key.sign(id, timestamp, body, &mut header);
    }
    header
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.public().is_some() { "Ed25519(..)" } else { "Hmac(..)" })
    }
}

impl Clone for SigningKey {
    fn clone(&self) -> Self {
        match self {
            Self::Hmac(secret) => Self::Hmac(secret.expose_secret().to_vec().into()),
            Self::Ed25519 { seed, .. } => Self::from_seed(seed.expose_secret()).expect("what was a seed is one still"),
        }
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public() && self.bytes() == other.bytes()
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn both_kinds_sign_one_message_and_each_is_checked_by_its_own() {
        let hmac = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let (private, public) = SigningKey::new_ed25519().unwrap();
        let keys = [SigningKey::parse(hmac).unwrap(), SigningKey::parse(&private).unwrap()];
        let header = sign_with(&keys, "evt_1", 1_764_000_000, b"{}");
        let (first, second) = header.split_once(' ').unwrap();
        assert_eq!(first, super::super::signature::sign(&[parse_secret(hmac).unwrap()], "evt_1", 1_764_000_000, b"{}"));
        let signature = BASE64_STANDARD.decode(second.strip_prefix("v1a,").unwrap()).unwrap();
        let public = BASE64_STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, public);
        assert!(key.verify(b"evt_1.1764000000.{}", &signature).is_ok());
        assert!(key.verify(b"evt_1.1764000001.{}", &signature).is_err());
        assert_eq!(format!("{keys:?}"), "[Hmac(..), Ed25519(..)]");
    }

    #[test]
    fn a_seed_is_read_with_its_public_key_and_not_with_another() {
        let (private, public) = SigningKey::new_ed25519().unwrap();
        let part = |text: &str| BASE64_STANDARD.decode(text.split_once('_').unwrap().1).unwrap();
        let whole = [part(&private), part(&public)].concat();
        let key = SigningKey::parse(&format!("whsk_{}", BASE64_STANDARD.encode(&whole))).unwrap();
        assert!(key == SigningKey::parse(&private).unwrap() && key == key.clone());
        let other = [part(&private), vec![7; 32]].concat();
        for (bytes, length) in [(other, 64), (vec![1; 31], 31), (vec![1; 33], 33)] {
            let text = format!("whsk_{}", BASE64_STANDARD.encode(bytes));
            assert_eq!(SigningKey::parse(&text).err(), Some(SecretError::Ed25519(length)));
        }
        assert_eq!(SigningKey::parse("whpk_AAAA").err(), Some(SecretError::NoPrefix));
    }
}
