//! The real process from outside: calls over UDP and TCP, requests over HTTP, webhooks to a real receiver, and kill -9.
//!
//! A file for each scenario. Every test has a process, a directory and ports of its own, so all of them run at once.
//! Nothing here sleeps: what must come about is waited for, with a deadline.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod caller;
mod config;
mod http;
mod node;
mod receiver;
mod sse;
mod stream;
mod wait;

mod admin;
mod assurance;
mod caps;
mod ceilings;
mod client_stream;
mod confirm;
mod crash;
mod create;
mod deliveries;
mod disk;
mod doctor;
mod drain;
mod duplicates;
mod endpoints;
mod expiry;
mod faults;
mod flood;
mod garbage;
mod keys;
mod learn;
mod limits;
mod lists;
mod logs;
mod long_poll;
mod methods;
mod paths;
mod phishing;
mod records;
mod refusal;
mod reload;
mod sandbox;
mod slow_commit;
mod start;
mod strangers;
mod supervisor;
mod tcp;
mod tcp_limits;
mod test_calls;
mod tls;
mod trace;
mod verify;
mod warnings;
mod webhooks;
