//! From an INVITE to a [`event::CallEvent`].
//!
//! Owns what a call says about its caller: which header names the number, whether that number is usable, how the call
//! was forwarded, and the level of proof that follows. Does not know verifications: it never learns whether anybody
//! waits for this call. Pure: message in, facts out, nothing allocated.

mod address;
mod asserted;
pub mod assurance;
pub mod dialplan;
mod display;
pub mod event;
pub mod evidence;
pub mod forwarding;
pub mod identity;
pub mod judge;
pub mod line;
pub mod number;
pub mod privacy;
pub mod profile;
pub mod remote_party;
pub mod trace;
pub mod trunk;
pub mod verdict;
