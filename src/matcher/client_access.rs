//! What lets an end user's browser follow a verification.

use std::fmt;

use serde::Serialize;

/// The `client` of an answer to the application, for it to hand on. Whoever has it sees the status, and nothing else.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ClientAccess {
    /// `rpc_` and what names and seals one verification.
    pub token: String,
    /// Where the browser listens: a path, or a whole URL where the node's own is configured. Holds the token.
    pub events_url: String,
}

impl fmt::Debug for ClientAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAccess(..)")
    }
}
