//! Client tokens: `rpc_`, the ULID of the verification, and an HMAC-SHA256 of it under a key of the node's own.
//!
//! Nothing is stored for one: the node makes the same token again whenever it is asked, also after a restart.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::events::EVENTS;
use crate::matcher::client_access::ClientAccess;
use crate::matcher::verification::{Verification, VerificationId};

const PREFIX: &str = "rpc_";
const ULID: usize = 26;
/// Bytes of the seal.
const SEAL: usize = 32;
/// How long a token lives after the window, so that a page still learns how it ended.
const GRACE: Duration = Duration::from_mins(1);

/// Makes tokens and checks them.
pub(in crate::api) struct Tokens {
    key: [u8; 32],
}

impl Tokens {
    pub(in crate::api) const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// What the application hands on to its user's browser. `public_url` is the node's own, without a slash at its end.
    pub(in crate::api) fn access(&self, id: VerificationId, public_url: Option<&str>) -> ClientAccess {
        let token = format!("{PREFIX}{}{}", id.0, URL_SAFE_NO_PAD.encode(self.seal(id)));
        let events_url = format!("{}{EVENTS}?token={token}", public_url.unwrap_or_default());
        ClientAccess { token, events_url }
    }

    /// The verification that a token is for; `None` where this node has not made it.
    pub(super) fn read(&self, token: &str) -> Option<VerificationId> {
        let (ulid, seal) = token.strip_prefix(PREFIX)?.split_at_checked(ULID)?;
        let id: VerificationId = format!("ver_{ulid}").parse().ok()?;
        let seal: [u8; SEAL] = URL_SAFE_NO_PAD.decode(seal).ok()?.try_into().ok()?;
        bool::from(seal.ct_eq(&self.seal(id))).then_some(id)
    }

    fn seal(&self, id: VerificationId) -> [u8; SEAL] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&id.0.to_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Until when the token of a verification is good.
pub(super) fn dies_at(verification: &Verification) -> SystemTime {
    verification.expires_at + GRACE
}

/// Whether the token of a verification is still good.
pub(in crate::api) fn lives(verification: &Verification, now: SystemTime) -> bool {
    now < dies_at(verification)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V";

    #[test]
    fn a_token_names_its_verification_and_is_the_same_again() {
        let (tokens, id) = (Tokens::new([7; 32]), ID.parse().unwrap());
        let access = tokens.access(id, None);
        assert_eq!(access, Tokens::new([7; 32]).access(id, None));
        assert_eq!(access.events_url, format!("/v1/client/events?token={}", access.token));
        let absolute = tokens.access(id, Some("https://verify.example")).events_url;
        assert_eq!(absolute, format!("https://verify.example{}", access.events_url));
        assert!(access.token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(tokens.read(&access.token), Some(id));
        assert_eq!(format!("{access:?}"), "ClientAccess(..)");
    }

    #[test]
    fn anything_but_the_token_itself_is_refused() {
        let tokens = Tokens::new([7; 32]);
        let token = tokens.access(ID.parse().unwrap(), None).token;
        assert_eq!(Tokens::new([8; 32]).read(&token), None, "of another node");
        for at in 0..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(tokens.read(&String::from_utf8(wrong).unwrap()), None, "changed at {at}");
        }
        for end in 0..token.len() {
            assert_eq!(tokens.read(&token[..end]), None, "cut at {end}");
        }
        for wrong in [format!("{token}A"), format!("{token}="), token.to_lowercase(), format!("rpc_{}", "é".repeat(40))]
        {
            assert_eq!(tokens.read(&wrong), None, "{wrong}");
        }
    }
}
