//! ringproof verifies a phone by a call that nobody answers.
//!
//! ```text
//! datagram -> message -> transaction -> call event -> matcher -> outbox -> webhook
//! transport    sip/message  sip/uas        call        matcher    outbox    webhook
//! ```
//!
//! Each step turns one value into the next. The inner steps (`sip`, `call`, `matcher`, `outbox`) are plain functions
//! of state, input and time; sockets, disks and clocks live at the edge (`transport`, `store`, `webhook`, `api`,
//! `engine`). `verify` is the application in the middle: it creates verifications, takes calls and commits matches.

pub mod admin;
pub mod api;
pub mod audit;
pub mod call;
pub mod config;
pub mod doctor;
pub mod e164;
pub mod engine;
pub mod learn;
pub mod load;
pub mod matcher;
pub mod outbox;
pub mod receipt;
pub mod sip;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod verify;
pub mod webhook;
