//! API keys: `rp_test_` or `rp_live_` and 32 random bytes in hexadecimal.
//!
//! Only the SHA-256 of a key's text is kept. 256 random bits need no slow or salted hash.

use std::fmt::Write;

use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// How a sandbox application's keys begin.
pub const TEST_PREFIX: &str = "rp_test_";
/// How a live application's keys begin.
pub const LIVE_PREFIX: &str = "rp_live_";

/// Makes a new key for a live or a sandbox application: its text, to be shown once, and the hash to keep.
///
/// # Errors
/// The system has no randomness to give.
pub fn mint(live: bool) -> Result<(SecretString, [u8; 32]), getrandom::Error> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random)?;
    let text = format!("{}{}", if live { LIVE_PREFIX } else { TEST_PREFIX }, hex(&random));
    let hash = hash(&text);
    Ok((text.into(), hash))
}

/// SHA-256 of a key's text.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Short name of a key: the first 8 hexadecimal digits of its hash.
#[must_use]
pub fn id(hash: &[u8; 32]) -> String {
    hex(&hash[..4])
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn minted_keys_differ_and_carry_their_mode() {
        let (sandbox, sandbox_hash) = mint(false).unwrap();
        let (live, _) = mint(true).unwrap();
        let text = sandbox.expose_secret();
        assert!(text.starts_with("rp_test_") && live.expose_secret().starts_with("rp_live_"));
        assert_eq!(text.len(), "rp_test_".len() + 64);
        assert_ne!(text[8..], live.expose_secret()[8..]);
        assert_eq!(hash(text), sandbox_hash);
        assert!(!format!("{sandbox:?}").contains(&text[8..]));
    }

    #[test]
    fn hash_is_sha_256_in_the_usual_notation() {
        assert_eq!(hex(&hash("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(id(&hash("abc")), "ba7816bf");
    }
}
