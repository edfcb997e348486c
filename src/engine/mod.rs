//! Wiring: sockets, clocks, threads and signals around the application.
//!
//! Owns the order of start and stop, the SIP loops and the node's own files. Decides when a SIP answer leaves; what it
//! says is the trunk's setting. Invariant: no INVITE is read before what was pending is back, and nothing that was
//! accepted is dropped at a stop.

mod audit_log;
pub mod backup;
mod caps;
pub mod ceilings;
mod certificate;
pub mod clock;
mod confirm;
pub mod control;
pub mod data_dir;
mod examined;
pub mod explain;
mod gauges;
mod listening;
pub mod operator;
mod peers;
mod reload;
mod routes;
mod sandbox;
mod serve;
mod signals;
mod sip_answer;
mod sip_connection;
mod sip_listener;
mod sip_worker;
mod supervisor;
mod test_calls;
mod threads;
mod waiting;
mod watchdog;
pub mod webhooks;

pub use examined::examined;
pub use serve::{ServeError, serve};
pub use signals::Signals;
