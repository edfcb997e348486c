//! What is on the wire: a scan that finds the few header fields that the call path reads, and the grammar of each.
//!
//! Owns RFC 3261 7 and 25. A [`Message`] borrows the datagram: fields are spans, nothing is copied, and what is not
//! asked for is not parsed. Values stay bytes, for legal display names need not be UTF-8.

pub mod cseq;
pub mod find;
pub mod header;
mod lex;
pub mod method;
pub mod name_addr;
pub mod params;
pub mod request;
pub mod scan;
pub mod uri;
pub mod via;

pub use cseq::CSeq;
pub use header::HeaderName;
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::{Param, Params};
pub use request::Request;
pub use scan::{Fault, Message, ScanError, Scanner, StartLine};
pub use uri::{SipUri, TelUri, Uri};
pub use via::Via;
