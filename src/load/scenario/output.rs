//! What a call wants done, and why it failed.

use std::time::Duration;

use super::received::Start;

/// Methods that an unexpected request is counted by; others are one.
const METHODS: [&str; 14] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];

/// What is to be done for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The call is over.
    Ended {
        /// From its first message to now.
        after: Duration,
        /// Why it did not go as the scenario says.
        failure: Option<Failure>,
    },
    /// A final response came that the scenario has.
    Final(u16),
    /// A line for the screen; it may hold what the peer sent.
    Line(Vec<u8>),
    /// A timer ended.
    Measured {
        /// Its place among the scenario's.
        timer: usize,
        /// What it measured.
        time: Duration,
    },
    /// The next message to send is one that was sent before.
    Repeated,
    /// A message to send.
    Send(Vec<u8>),
}

/// Why a call did not go as the scenario says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The connection was closed.
    #[error("connection")]
    Connection,
    /// The user ended the load.
    #[error("interrupted")]
    Interrupted,
    /// The steps lead back to themselves without waiting for anything.
    #[error("endless loop")]
    Loop,
    /// Nothing came in time.
    #[error("timeout")]
    Timeout,
    /// A message came out longer than one can be.
    #[error("too long")]
    TooLong,
    /// A request came that the scenario has not there; the method, or `request` for a rare one.
    #[error("unexpected {0}")]
    UnexpectedRequest(&'static str),
    /// A response came that the scenario has not there.
    #[error("unexpected {0}")]
    UnexpectedResponse(u16),
}

impl Failure {
    /// That of a message which the scenario has not there.
    pub(super) fn unexpected(start: Start<'_>) -> Self {
        match start {
            Start::Response(code) => Self::UnexpectedResponse(code),
            Start::Request(name) => {
                let known = METHODS.iter().find(|method| **method == name);
                Self::UnexpectedRequest(known.copied().unwrap_or("request"))
            }
        }
    }
}
