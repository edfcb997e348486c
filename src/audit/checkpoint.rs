//! Signed statements of how far the log has come.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use crate::receipt::jws::{self, JwsError};
use crate::receipt::keys::{Keys, PublicKeys};

/// `typ` of the signature.
pub const TYPE: &str = "ringproof-checkpoint+jwt";

/// What a checkpoint says: entry `seq` had `hash`, and all before it were there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Statement {
    iss: String,
    /// Seconds since 1970 UTC.
    iat: u64,
    seq: u64,
    hash: String,
}

/// Signs how far the log has come. `issuer` names the node.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
pub fn sign(keys: &Keys, issuer: &str, chain: &Chain, at: SystemTime) -> String {
    let iat = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let statement = Statement { iss: issuer.to_owned(), iat, seq: chain.seq, hash: hex::encode(chain.hash) };
    let payload = serde_json::to_vec(&statement).expect("texts always become JSON");
    jws::sign(keys, TYPE, &payload)
}

/// Checks a checkpoint; gives how far the log had come.
///
/// # Errors
/// Each [`JwsError`].
pub fn verify(keys: &PublicKeys, text: &str) -> Result<Chain, JwsError> {
    let payload = jws::verify(keys, TYPE, text)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(|_| JwsError::Form)?;
    let hash = hex::decode(&statement.hash).ok().and_then(|hash| hash.try_into().ok()).ok_or(JwsError::Form)?;
    Ok(Chain { seq: statement.seq, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_says_what_was_signed() {
        let keys = Keys::from_seed(&[5; 32]);
        let chain = Chain { seq: 70, hash: [9; 32] };
        let text = sign(&keys, "edge-1", &chain, UNIX_EPOCH);
        assert_eq!(verify(keys.public(), &text), Ok(chain));
        let other = jws::sign(&keys, "ringproof-receipt+jwt", b"{}");
        assert!(matches!(verify(keys.public(), &other), Err(JwsError::Type(_))));
    }
}
