//! Scenarios of SIPp, played by the thousand: the command `ringproof load scenario`.
//!
//! Owns the client scenarios that SIPp's XML describes, as far as they send, receive, wait and branch: reading them,
//! playing them call by call as SIPp 3.6 does, and counting what became of the calls. Does not run servers, actions
//! that compute, credentials or media. Invariant: what a file asks for and this does not do is an error before the
//! first call, so a load means what its scenario says; and each call is counted once, as ended or as lost by a name.
//!
//! Two things are other than in SIPp. `[pid]` is a number of the run that no other run has, for two containers have
//! the same process numbers. And a `<recv>` waits no longer than `--timeout` where it has no `timeout` itself.

mod abort;
pub mod arguments;
mod call;
mod element;
mod engine;
mod expected;
mod fault;
mod fields;
mod keyword;
mod link;
mod output;
mod parse;
mod random;
mod received;
mod run;
mod step;
mod template;
mod text;

pub use fault::{Fault, ScenarioError};
pub use fields::FieldsError;
pub use link::LinkError;
pub use run::{Outcome, PlayError, Settings, run};
pub use template::KeywordError;
