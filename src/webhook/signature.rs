//! Signatures of Standard Webhooks 1.0 with a shared secret: HMAC-SHA256 of `id.timestamp.body`.
//!
//! Owns the form of these secrets and signatures, for the sender and for those who check. Does not choose which secrets are
//! in force. Invariant: a comparison takes the same time wherever two signatures differ.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Header with the event's id, the same on every try.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// Header with the time of the try in whole seconds since 1970 UTC.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// Header with one signature for each secret, separated by spaces.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How far the timestamp of a try may be from the receiver's clock, either way.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// Lengths in bytes that a secret may have.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Bytes of a secret made here.
const NEW_SECRET_BYTES: usize = 32;

const SECRET_PREFIX: &str = "whsec_";
const SCHEME: &str = "v1,";

/// Most signatures of one header that are looked at.
const MOST_SIGNATURES: usize = 16;

/// Why a text is not a secret. The operator corrects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It begins with something else.
    #[error("does not begin with \"{SECRET_PREFIX}\", nor with \"whsk_\" as an Ed25519 key does")]
    NoPrefix,
    /// What stands behind the prefix is not standard base64 with padding.
    #[error("is not base64 behind its prefix")]
    NotBase64,
    /// It begins as a key for Ed25519 does, and its bytes are none.
    #[error(
        "holds {0} bytes that are no Ed25519 key; behind \"whsk_\" stands the base64 of a seed of 32 bytes, or of the seed and its public key"
    )]
    Ed25519(usize),
    /// Too few or too many bytes.
    #[error("holds {0} bytes, not {min} to {max}", min = SECRET_BYTES.start(), max = SECRET_BYTES.end())]
    Length(usize),
}

/// Why a message is not taken for genuine. Nobody acts on it but the one who set up the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is not there, or is no readable text.
    #[error("{0} is missing or unreadable")]
    Header(&'static str),
    /// The timestamp is no whole number.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// The timestamp is more than [`TOLERANCE`] away.
    #[error("webhook-timestamp is more than 5 minutes off")]
    Stale,
    /// No signature was made with one of the secrets.
    #[error("no signature fits")]
    Mismatch,
}

/// Reads a secret: `whsec_` and the base64 of 24 to 64 bytes.
///
/// # Errors
/// Each [`SecretError`].
pub fn parse_secret(text: &str) -> Result<SecretSlice<u8>, SecretError> {
    let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(SecretError::NoPrefix)?;
    let secret = BASE64_STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?;
    if SECRET_BYTES.contains(&secret.len()) { Ok(secret.into()) } else { Err(SecretError::Length(secret.len())) }
}

/// Makes a secret of 32 random bytes, in the form that [`parse_secret`] reads.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn new_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; NEW_SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(bytes)))
}

/// The `webhook-signature` of a message: one `v1,<base64>` for each secret, in their order, separated by spaces.
///
/// `timestamp` is in seconds since 1970 UTC.
#[must_use]
pub fn sign(secrets: &[SecretSlice<u8>], id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut header = String::with_capacity(secrets.len() * 48);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str(SCHEME);
        BASE64_STANDARD.encode_string(mac(secret, id, timestamp, body), &mut header);
    }
    header
}

/// Checks a message as a receiver does: the three headers are there, the timestamp is near `now`, and one of the
/// signatures was made with one of `secrets`.
///
/// # Errors
/// Each [`VerifyError`].
pub fn verify(
    secrets: &[SecretSlice<u8>],
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<(), VerifyError> {
    let id = text(headers, &WEBHOOK_ID, "webhook-id")?;
    let timestamp = text(headers, &WEBHOOK_TIMESTAMP, "webhook-timestamp")?;
    let signatures = text(headers, &WEBHOOK_SIGNATURE, "webhook-signature")?;
    let timestamp: u64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    if timestamp.abs_diff(unix_seconds(now)) > TOLERANCE.as_secs() {
        return Err(VerifyError::Stale);
    }
    let candidates: Vec<Vec<u8>> = signatures
        .split(' ')
        .take(MOST_SIGNATURES)
        .filter_map(|signature| BASE64_STANDARD.decode(signature.strip_prefix(SCHEME)?).ok())
        .collect();
    let mut fits = subtle::Choice::from(0);
    for secret in secrets {
        let expected = mac(secret, id, timestamp, body);
        for candidate in &candidates {
            fits |= expected.ct_eq(candidate);
        }
    }
    if fits.into() { Ok(()) } else { Err(VerifyError::Mismatch) }
}

/// Whole seconds since 1970 UTC; 0 for times before.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName, shown: &'static str) -> Result<&'a str, VerifyError> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyError::Header(shown))
}

pub(super) fn mac(secret: &SecretSlice<u8>, id: &str, timestamp: u64, body: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret()).expect("HMAC takes a key of any length");
    fmt::Write::write_fmt(&mut Feed(&mut mac), format_args!("{id}.{timestamp}.")).expect("a hash takes any text");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// Lets `write!` feed a MAC without a text in between.
struct Feed<'a>(&'a mut Hmac<Sha256>);

impl fmt::Write for Feed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const ID: &str = "evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V";
    const AT: u64 = 1_764_000_000;
    const BODY: &str = r#"{"type":"verification.verified","timestamp":"2025-11-24T16:00:00.125Z","data":{"id":"ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V","status":"verified"}}"#;
    const SIGNATURE: &str = "v1,0vHhm/XN3fHMFHy5NotvXYafQQuChX+/PQAlJ9Kgocw=";

    #[test]
    fn published_vector_signs_as_published() {
        assert_eq!(sign(&[parse_secret(SECRET).unwrap()], ID, AT, BODY.as_bytes()), SIGNATURE);
    }

    #[test]
    fn every_secret_signs_while_rotating() {
        let new = parse_secret(&new_secret().unwrap()).unwrap();
        let header = sign(&[new, parse_secret(SECRET).unwrap()], ID, AT, BODY.as_bytes());
        let (first, second) = header.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && first != SIGNATURE, "{header}");
        assert_eq!(second, SIGNATURE);
        assert_eq!(
            verify(&[parse_secret(SECRET).unwrap()], &headers(ID, "1764000000", &header), BODY.as_bytes(), at(0)),
            Ok(())
        );
    }

    #[test]
    fn faults_of_secrets_are_told_apart() {
        let of_length = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7u8; bytes]));
        let cases = [
            ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(), SecretError::NoPrefix),
            ("whsec_not base64".to_owned(), SecretError::NotBase64),
            ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned(), SecretError::NotBase64),
            ("whsec_".to_owned(), SecretError::Length(0)),
            (of_length(23), SecretError::Length(23)),
            (of_length(65), SecretError::Length(65)),
        ];
        for (text, fault) in cases {
            assert_eq!(parse_secret(&text).err(), Some(fault), "{text}");
        }
        assert!(parse_secret(&of_length(24)).is_ok() && parse_secret(&of_length(64)).is_ok());
        assert_eq!(SecretError::Length(23).to_string(), "holds 23 bytes, not 24 to 64");
    }

    #[test]
    fn forged_stale_and_incomplete_messages_are_refused() {
        let secrets = [parse_secret(SECRET).unwrap()];
        let check = |headers: &HeaderMap, body: &str, offset| verify(&secrets, headers, body.as_bytes(), at(offset));
        let good = headers(ID, "1764000000", SIGNATURE);
        assert_eq!(check(&good, BODY, 300), Ok(()));
        assert_eq!(check(&good, BODY, -300), Ok(()));
        assert_eq!(check(&good, BODY, 301), Err(VerifyError::Stale));
        assert_eq!(check(&good, BODY, -301), Err(VerifyError::Stale));
        assert_eq!(check(&good, "{}", 0), Err(VerifyError::Mismatch));
        assert_eq!(check(&headers("evt_other", "1764000000", SIGNATURE), BODY, 0), Err(VerifyError::Mismatch));
        assert_eq!(check(&headers(ID, "1764000001", SIGNATURE), BODY, 0), Err(VerifyError::Mismatch));
        assert_eq!(check(&headers(ID, "soon", SIGNATURE), BODY, 0), Err(VerifyError::Timestamp));
        assert_eq!(check(&headers(ID, "1764000000", "v1a,AAAA v2,AAAA v1,"), BODY, 0), Err(VerifyError::Mismatch));
        let mut without = good.clone();
        without.remove(&WEBHOOK_SIGNATURE);
        assert_eq!(check(&without, BODY, 0), Err(VerifyError::Header("webhook-signature")));
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_no_other_body_does(body: Vec<u8>, other: Vec<u8>, key in prop::collection::vec(any::<u8>(), 24..=64)) {
            let secrets = [SecretSlice::from(key)];
            let headers = headers(ID, "1764000000", &sign(&secrets, ID, AT, &body));
            prop_assert_eq!(verify(&secrets, &headers, &body, at(0)), Ok(()));
            prop_assert_eq!(verify(&secrets, &headers, &other, at(0)).is_ok(), body == other);
        }

        #[test]
        fn any_header_text_is_survived(id in "[ -~]{0,40}", timestamp in "[ -~]{0,40}", signature in "[ -~]{0,200}") {
            let secrets = [parse_secret(SECRET).unwrap()];
            prop_assert!(verify(&secrets, &headers(&id, &timestamp, &signature), b"", at(0)).is_err());
        }
    }

    fn at(offset: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(AT.checked_add_signed(offset).unwrap())
    }

    fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        let pairs = [(WEBHOOK_ID, id), (WEBHOOK_TIMESTAMP, timestamp), (WEBHOOK_SIGNATURE, signature)];
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }
}
