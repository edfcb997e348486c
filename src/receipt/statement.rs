//! What a receipt says: the outcome of a verification as the audit log holds it, and where it stands there.

use std::fmt::Write;

use serde::Deserialize;

use super::jws::{self, JwsError};
use super::keys::{Keys, PublicKeys};
use crate::e164::E164;
use crate::matcher::phone_key::PhoneKey;

/// `typ` of the signature.
pub const TYPE: &str = "ringproof-receipt+jwt";

/// What stands in the audit log of a verification that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Number of the entry.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When the verification ended, seconds since 1970 UTC.
    pub at: u64,
    /// Its `data`: a JSON object.
    pub data: String,
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The signature, which holds the payload.
    pub jws: String,
    /// The payload: a JSON object.
    pub payload: String,
}

/// Signs a receipt. `disclosed` names the phone, and the key with which it is told from its HMAC.
#[must_use]
pub fn sign(
    keys: &Keys,
    issuer: &str,
    verification: &str,
    recorded: &Recorded,
    disclosed: Option<(E164, PhoneKey)>,
) -> Receipt {
    let Recorded { seq, hash, at, data } = recorded;
    let issuer = serde_json::Value::from(issuer);
    let members = data.strip_prefix('{').and_then(|data| data.strip_suffix('}')).unwrap_or_default();
    let mut payload = format!("{{\"iss\":{issuer},\"iat\":{at},\"jti\":\"{verification}\",{members}");
    // Writing to a `String` does not fail.
    let _ = write!(payload, ",\"audit\":{{\"seq\":{seq},\"hash\":\"{}\"}}", hex::encode(hash));
    if let Some((phone, key)) = disclosed {
        let _ = write!(payload, ",\"phone\":\"{phone}\",\"phone_key\":\"{}\"", hex::encode(key.0));
    }
    payload.push('}');
    Receipt { jws: jws::sign(keys, TYPE, payload.as_bytes()), payload }
}

/// Why a receipt is not taken. Whoever was given it acts on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Its signature.
    #[error("the receipt {0}")]
    Jws(#[from] JwsError),
    /// It was signed, and says nothing that this version reads.
    #[error("the receipt is signed and says nothing that this version reads")]
    Payload,
    /// It names a phone that its HMAC is not of.
    #[error("the receipt names a phone that its phone_hmac is not of")]
    Phone,
}

#[derive(Deserialize)]
struct Disclosed {
    phone_hmac: Option<String>,
    phone: Option<String>,
    phone_key: Option<String>,
}

/// Checks a receipt, and that a phone in it is the one of its HMAC; gives its payload.
///
/// # Errors
/// Each [`ReceiptError`].
pub fn verify(keys: &PublicKeys, text: &str) -> Result<String, ReceiptError> {
    let payload = jws::verify(keys, TYPE, text)?;
    let payload = String::from_utf8(payload).map_err(|_| ReceiptError::Payload)?;
    let disclosed: Disclosed = serde_json::from_str(&payload).map_err(|_| ReceiptError::Payload)?;
    if let Some(phone) = disclosed.phone {
        let bytes = |text: Option<String>| -> Option<[u8; 32]> { hex::decode(text?).ok()?.try_into().ok() };
        let fits = || {
            let (key, hmac) = (bytes(disclosed.phone_key)?, bytes(disclosed.phone_hmac)?);
            Some(PhoneKey(key).fits(phone.parse().ok()?, &hmac))
        };
        if fits() != Some(true) {
            return Err(ReceiptError::Phone);
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(data: &str) -> Recorded {
        Recorded { seq: 7, hash: [1; 32], at: 1_764_000_000, data: data.to_owned() }
    }

    #[test]
    fn a_receipt_says_what_was_recorded_and_where() {
        let keys = Keys::from_seed(&[6; 32]);
        for data in [r#"{"status":"expired","reasons":[]}"#, r#"{"status":"verified","call":{"id":"call_1"}}"#] {
            let receipt = sign(&keys, "edge \"1\"", "ver_1", &recorded(data), None);
            let read: serde_json::Value = serde_json::from_str(&verify(keys.public(), &receipt.jws).unwrap()).unwrap();
            assert_eq!(
                (&read["iss"], &read["jti"], &read["audit"]["seq"]),
                (&"edge \"1\"".into(), &"ver_1".into(), &7.into())
            );
            let whole: serde_json::Value = serde_json::from_str(data).unwrap();
            for (name, value) in whole.as_object().unwrap() {
                assert_eq!(&read[name], value, "{name}");
            }
        }
    }

    #[test]
    fn a_phone_is_disclosed_by_wish_and_checked() {
        let (keys, key) = (Keys::from_seed(&[6; 32]), PhoneKey([2; 32]));
        let phone: E164 = "+966500000123".parse().unwrap();
        let data = format!(r#"{{"phone_hmac":"{}","status":"verified"}}"#, hex::encode(key.hmac(phone)));
        let receipt = sign(&keys, "edge-1", "ver_1", &recorded(&data), Some((phone, key)));
        assert!(verify(keys.public(), &receipt.jws).unwrap().contains("+966500000123"));
        let other = sign(&keys, "edge-1", "ver_1", &recorded(&data), Some((phone, PhoneKey([3; 32]))));
        assert_eq!(verify(keys.public(), &other.jws), Err(ReceiptError::Phone));
        let without = sign(&keys, "edge-1", "ver_1", &recorded(&data), None);
        assert!(!without.payload.contains("966500000123"));
    }
}
