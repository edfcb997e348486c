//! Compact JSON Web Signatures (RFC 7515 7.1) with `alg` `EdDSA`, nothing else.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;

use super::keys::{Keys, PublicKeys};

/// Longest text that is looked at.
const LONGEST: usize = 64 << 10;

/// Why a text is not taken for a statement. Whoever was given it acts on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// It is not three parts of base64url with a header that is read.
    #[error("is no compact JSON Web Signature")]
    Form,
    /// It was not signed with `EdDSA`.
    #[error("has the alg {0:?}, not \"EdDSA\"")]
    Algorithm(String),
    /// It was signed for another use.
    #[error("is a {0:?}, which is something else")]
    Type(String),
    /// Its header asks for something that is not understood (RFC 7515 4.1.11).
    #[error("has critical header parameters that are not understood")]
    Critical,
    /// It was signed by a key that is not in the set.
    #[error("was signed with the key {0:?}, which is not among those given")]
    UnknownKey(String),
    /// Header, payload or signature are not those that were made.
    #[error("has a signature that does not fit: it was changed, or made by somebody else")]
    Signature,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
    #[serde(default)]
    kid: String,
    crit: Option<serde_json::Value>,
}

/// Signs `payload` for the use that `typ` names.
#[must_use]
pub fn sign(keys: &Keys, typ: &str, payload: &[u8]) -> String {
    let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{}\",\"typ\":\"{typ}\"}}", keys.kid());
    let mut text = BASE64_URL_SAFE_NO_PAD.encode(header);
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    let signature = keys.sign(text.as_bytes());
    text.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

/// Checks a statement; gives its payload.
///
/// # Errors
/// Each [`JwsError`].
pub fn verify(keys: &PublicKeys, typ: &str, text: &str) -> Result<Vec<u8>, JwsError> {
    if text.len() > LONGEST {
        return Err(JwsError::Form);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(JwsError::Form)?;
    let (header, payload) = message.split_once('.').ok_or(JwsError::Form)?;
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Form);
    let (header, payload, signature) = (part(header)?, part(payload)?, part(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Form)?;
    if header.alg != "EdDSA" {
        return Err(JwsError::Algorithm(header.alg));
    }
    if header.crit.is_some() {
        return Err(JwsError::Critical);
    }
    if !keys.has(&header.kid) {
        return Err(JwsError::UnknownKey(header.kid));
    }
    if !keys.fits(&header.kid, message.as_bytes(), &signature) {
        return Err(JwsError::Signature);
    }
    if header.typ == typ { Ok(payload) } else { Err(JwsError::Type(header.typ)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_rfc() {
        // RFC 8037 A.4: header {"alg":"EdDSA"} and this payload.
        let d = BASE64_URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let keys = Keys::from_seed(&d.try_into().unwrap());
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(keys.sign(message.as_bytes())), signature);
    }

    #[test]
    fn what_is_signed_is_taken_and_nothing_else_is() {
        let keys = Keys::from_seed(&[3; 32]);
        let text = sign(&keys, "a+jwt", b"{\"x\":1}");
        let check = |text: &str| verify(keys.public(), "a+jwt", text);
        assert_eq!(check(&text).unwrap(), b"{\"x\":1}");
        assert_eq!(verify(keys.public(), "b+jwt", &text), Err(JwsError::Type("a+jwt".into())));
        let other = Keys::from_seed(&[4; 32]);
        assert!(matches!(verify(other.public(), "a+jwt", &text), Err(JwsError::UnknownKey(_))));
        for place in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last digit of 64 bytes has two bits that mean nothing, which strict readers refuse.
            assert!(check(&changed).is_err(), "{place}");
        }
        let none = format!("{}.e30.", BASE64_URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"));
        assert_eq!(check(&none), Err(JwsError::Algorithm("none".into())));
        let crit = format!("{}.e30.AA", BASE64_URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\",\"crit\":[\"b64\"]}"));
        assert_eq!(check(&crit), Err(JwsError::Critical));
        for text in ["", ".", "..", "a.b", "e30.e30.e30", &"a".repeat(70_000)] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
