//! What an end user's browser may ask, with a client token in place of a key: the status of one verification.
//!
//! Owns the token, the origins that pages may have (CORS), and the stream of events. Invariant: whoever holds a token
//! learns the status of its verification, and neither the phone nor anything else of the application.

mod events;
mod origin;
mod stream;
mod streams;
mod token;

pub(super) use events::{EVENTS, follow, preflight};
pub(super) use streams::Streams;
pub(super) use token::{Tokens, lives};
