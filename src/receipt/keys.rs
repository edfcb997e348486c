//! The keys: one that signs, and all public ones that ever did, as a JSON Web Key set (RFC 7517, RFC 8037 2).

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of a seed (RFC 8032 5.1.5).
pub const SEED: usize = 32;

/// Longest text that is read as a set of keys: some thousand of them.
const LONGEST: usize = 1 << 20;

/// Why a text is no set of keys. The operator acts on it.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is no JSON Web Key set, or unreasonably long.
    #[error("is no JSON Web Key set such as {{\"keys\":[..]}}")]
    Form,
    /// One of its keys is no Ed25519 key, or its parts do not belong together.
    #[error("key {0} is no whole Ed25519 key (kty OKP, crv Ed25519, x; with d as well where it signs)")]
    Key(usize),
    /// None of them can sign.
    #[error("has no key that signs: the last one needs its d")]
    NoSigner,
}

/// The public keys of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys(Vec<PublicKey>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct PublicKey {
    kid: String,
    bytes: Vec<u8>,
}

/// A set whose last key signs.
pub struct Keys {
    public: PublicKeys,
    signer: Ed25519KeyPair,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("public", &self.public).finish_non_exhaustive()
    }
}

/// As in the file and in the answer; `d` in the file alone.
#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "use")]
    usage: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

impl PublicKeys {
    /// Reads a JSON Web Key set. Private parts in it are not looked at.
    ///
    /// # Errors
    /// `KeysError::Form` and `Key`.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let set = parse(text)?;
        let public = set.keys.iter().enumerate().map(|(place, jwk)| public(jwk).ok_or(KeysError::Key(place + 1)));
        public.collect::<Result<_, _>>().map(Self)
    }

    /// The set as `/.well-known/jwks.json` shows it.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub fn to_jwks(&self) -> String {
        let keys = self.0.iter().map(|key| jwk(key, None)).collect();
        serde_json::to_string(&Set { keys }).expect("texts always become JSON")
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a key of this name.
    #[must_use]
    pub fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid == kid)
    }

    /// Whether `signature` of `message` was made with the key of this name.
    #[must_use]
    pub fn fits(&self, kid: &str, message: &[u8], signature: &[u8]) -> bool {
        let with = |key: &PublicKey| UnparsedPublicKey::new(&ED25519, &key.bytes).verify(message, signature).is_ok();
        self.0.iter().any(|key| key.kid == kid && with(key))
    }
}

impl Keys {
    /// A set of one key, from random bytes.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "any 32 bytes are a seed")]
    pub fn from_seed(seed: &[u8; SEED]) -> Self {
        let signer = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let key = named(signer.public_key().as_ref().to_vec());
        Self { public: PublicKeys(vec![key]), signer }
    }

    /// Reads the node's file.
    ///
    /// # Errors
    /// Each [`KeysError`].
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let public = PublicKeys::parse(text)?;
        let last = parse(text)?.keys.pop().ok_or(KeysError::NoSigner)?;
        let seed = last.d.and_then(|d| BASE64_URL_SAFE_NO_PAD.decode(d).ok()).ok_or(KeysError::NoSigner)?;
        let x = &public.0.last().ok_or(KeysError::NoSigner)?.bytes;
        let signer = Ed25519KeyPair::from_seed_and_public_key(&seed, x).map_err(|_| KeysError::Key(public.0.len()))?;
        Ok(Self { public, signer })
    }

    /// The file of a set that goes on with another key: the former ones stay to be checked with, and sign no more.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub fn file_with(former: &PublicKeys, seed: &[u8; SEED]) -> String {
        let next = Self::from_seed(seed);
        let signing = next.public.0.iter().map(|key| jwk(key, Some(BASE64_URL_SAFE_NO_PAD.encode(seed))));
        let keys = former.0.iter().map(|key| jwk(key, None)).chain(signing).collect();
        serde_json::to_string(&Set { keys }).expect("texts always become JSON")
    }

    /// The file of `text` with former keys of another one besides.
    ///
    /// # Errors
    /// Each [`KeysError`] of `text`.
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub fn file_and(text: &str, others: &PublicKeys) -> Result<String, KeysError> {
        let own = Self::parse(text)?;
        let mut keys = parse(text)?.keys;
        let missing = others.0.iter().filter(|key| !own.public.0.contains(key)).map(|key| jwk(key, None));
        keys.splice(0..0, missing);
        Ok(serde_json::to_string(&Set { keys }).expect("texts always become JSON"))
    }

    /// What checks.
    #[must_use]
    pub fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// Name of the key that signs.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.public.0.last().map_or("", |key| &key.kid)
    }

    /// Signs. The same message has the same signature (RFC 8032 5.1.6).
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "an Ed25519 signature has 64 bytes")]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signer.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

fn parse(text: &str) -> Result<Set, KeysError> {
    if text.len() > LONGEST {
        return Err(KeysError::Form);
    }
    serde_json::from_str(text).map_err(|_| KeysError::Form)
}

fn public(jwk: &Jwk) -> Option<PublicKey> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&jwk.x).ok()?;
    (jwk.kty == "OKP" && jwk.crv == "Ed25519" && bytes.len() == 32).then(|| {
        let key = named(bytes);
        PublicKey { kid: jwk.kid.clone().unwrap_or(key.kid), bytes: key.bytes }
    })
}

/// A key's name is its thumbprint (RFC 7638 3, RFC 8037 A.3).
fn named(bytes: Vec<u8>) -> PublicKey {
    let x = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
    let hash = Sha256::digest(format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{x}\"}}"));
    PublicKey { kid: BASE64_URL_SAFE_NO_PAD.encode(hash), bytes }
}

fn jwk(key: &PublicKey, d: Option<String>) -> Jwk {
    Jwk {
        kty: "OKP".into(),
        crv: "Ed25519".into(),
        x: BASE64_URL_SAFE_NO_PAD.encode(&key.bytes),
        d,
        kid: Some(key.kid.clone()),
        alg: Some("EdDSA".into()),
        usage: Some("sig".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 A.1 and A.2.
    const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn a_key_has_the_public_part_and_the_name_of_the_rfc() {
        let seed: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(D).unwrap().try_into().unwrap();
        let keys = Keys::from_seed(&seed);
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(&keys.public.0[0].bytes), X);
        assert_eq!(keys.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "RFC 8037 A.3");
    }

    #[test]
    fn a_file_reads_back_and_former_keys_go_on_to_check() {
        let first = Keys::file_with(&PublicKeys::default(), &[1; 32]);
        let old = Keys::parse(&first).unwrap();
        let signature = old.sign(b"message");
        let second = Keys::file_with(old.public(), &[2; 32]);
        let new = Keys::parse(&second).unwrap();
        assert_ne!(old.kid(), new.kid());
        assert!(new.public().fits(old.kid(), b"message", &signature));
        assert!(!new.public().fits(new.kid(), b"message", &signature));
        assert!(!new.public().fits(old.kid(), b"massage", &signature));
        assert_eq!(second.matches("\"d\":").count(), 1, "a former key cannot sign any more");
        let shown = new.public().to_jwks();
        assert!(!shown.contains("\"d\":"));
        let third = Keys::file_with(&PublicKeys::default(), &[3; 32]);
        let both = Keys::parse(&Keys::file_and(&third, new.public()).unwrap()).unwrap();
        assert_eq!((both.public().len(), both.kid()), (3, Keys::parse(&third).unwrap().kid()));
        assert_eq!(
            Keys::file_and(&third, both.public()).map(|it| Keys::parse(&it).unwrap().public().len()).unwrap(),
            3
        );
        assert_eq!(PublicKeys::parse(&shown).unwrap(), *new.public());
        assert!(!format!("{new:?}").contains(&BASE64_URL_SAFE_NO_PAD.encode([2; 32])));
    }

    #[test]
    fn what_is_no_set_is_told_apart() {
        let whole = Keys::file_with(&PublicKeys::default(), &[1; 32]);
        let other = BASE64_URL_SAFE_NO_PAD.encode([9; 32]);
        let own = BASE64_URL_SAFE_NO_PAD.encode([1; 32]);
        assert!(matches!(Keys::parse("{}"), Err(KeysError::Form)));
        assert!(matches!(Keys::parse("{\"keys\":[]}"), Err(KeysError::NoSigner)));
        assert!(matches!(Keys::parse(&whole.replace("OKP", "EC")), Err(KeysError::Key(1))));
        assert!(matches!(Keys::parse(&whole.replace(&own, &other)), Err(KeysError::Key(1))), "not one pair");
        let public = Keys::parse(&whole).unwrap().public().to_jwks();
        assert!(matches!(Keys::parse(&public), Err(KeysError::NoSigner)));
    }
}
