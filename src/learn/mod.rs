//! `ringproof trunk learn`: what a capture of a peer's calls tells about it, as a `[[trunk]]` to be read and corrected.
//!
//! ```text
//! capture -> packet -> streams -> messages -> evidence -> habits -> proposal
//! ```
//!
//! Owns the way from a pcap or pcapng file to a proposal. Does not load a configuration, send anything or keep what it
//! read. Invariants: no phone number is printed whole; nothing in a capture makes it vouch for a caller, so that
//! `asserted_trust` is always `none` and no verdict header is declared; memory is bounded, and what was passed over is
//! said aloud.

mod capture;
mod counts;
mod dialling;
mod evidence;
mod habits;
mod layout;
mod messages;
mod packet;
mod peers;
mod profile;
mod proposal;
mod streams;
mod written;

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use self::capture::{End, Frame};
use self::evidence::{Observed, Transport};
use self::habits::Group;
use self::packet::{Carried, Packets, Passed};
use self::streams::Streams;
use crate::sip::message::Scanner;

/// Why there is no proposal.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The bytes do not begin as a capture does.
    #[error("neither a pcap nor a pcapng capture; a compressed one has to be unpacked first")]
    NotACapture,
    /// The bytes could not be read.
    #[error("the capture cannot be read: {0}")]
    Read(#[from] io::Error),
    /// No INVITE that begins a call could be read.
    #[error(
        "no INVITE that begins a call among {packets} packets: {messages} SIP messages, {truncated} packets cut short \
         by the capture, {unreadable} packets not readable"
    )]
    NothingLearned {
        /// Packets in the capture, as far as it was read.
        packets: u64,
        /// SIP messages in them.
        messages: u64,
        /// Packets of which the capture holds a part only.
        truncated: u64,
        /// Packets that no known link layer, or a broken header, begins.
        unreadable: u64,
    },
}

/// What a capture told. `Display` gives the proposal: TOML with its evidence in comments.
pub struct Learned {
    reading: Reading,
    groups: Vec<Group>,
    observed: Observed,
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was observed holds numbers.
        f.debug_struct("Learned").field("reading", &self.reading).finish_non_exhaustive()
    }
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        proposal::write(f, &self.reading, &self.observed, &self.groups)
    }
}

/// What was read, and what was passed over.
#[derive(Debug, Default)]
struct Reading {
    packets: u64,
    end: End,
    truncated: u64,
    unreadable: u64,
    /// Neither UDP nor TCP.
    foreign: u64,
    /// Pieces of IP packets, until the last of each came.
    fragments: u64,
    streams: streams::Tally,
}

/// Reads a capture and makes a proposal of it.
///
/// # Errors
/// [`LearnError`]: no capture, not readable, or without a call.
pub fn learn(bytes: impl Read) -> Result<Learned, LearnError> {
    let mut learner = Learner::default();
    let end = capture::each(bytes, |frame| learner.take(frame))?;
    learner.finish();
    let Learner { mut reading, streams, mut observed, .. } = learner;
    reading.end = end;
    reading.streams = streams.tally();
    if observed.sources.is_empty() {
        return Err(LearnError::NothingLearned {
            packets: reading.packets,
            messages: observed.messages,
            truncated: reading.truncated,
            unreadable: reading.unreadable,
        });
    }
    let groups = habits::groups(std::mem::take(&mut observed.sources));
    Ok(Learned { reading, groups, observed })
}

/// The way of one packet through the steps.
#[derive(Default)]
struct Learner {
    reading: Reading,
    packets: Packets,
    streams: Streams,
    scanner: Scanner,
    observed: Observed,
    /// When the last packet was captured.
    latest: Duration,
}

impl Learner {
    fn take(&mut self, frame: &Frame<'_>) {
        self.reading.packets += 1;
        self.latest = frame.at;
        let segment = match self.packets.read(frame) {
            Ok(segment) => segment,
            Err(passed) => return self.pass(passed),
        };
        let (from, to, at) = (segment.from, segment.to, segment.at);
        let (scanner, observed) = (&mut self.scanner, &mut self.observed);
        match segment.carried {
            Carried::Datagram(bytes) => {
                observed.note(messages::read(scanner, &bytes), Transport::Udp, from, to, at);
            }
            Carried::Stream(part) => self.streams.take((from, to), &part, |message| {
                observed.note(messages::read(scanner, message), Transport::Tcp, from, to, at);
            }),
        }
    }

    fn finish(&mut self) {
        let (scanner, observed, at) = (&mut self.scanner, &mut self.observed, self.latest);
        self.streams.finish(|(from, to), message| {
            observed.note(messages::read(scanner, message), Transport::Tcp, from, to, at);
        });
    }

    fn pass(&mut self, passed: Passed) {
        let count = match passed {
            Passed::Truncated => &mut self.reading.truncated,
            Passed::Unreadable => &mut self.reading.unreadable,
            Passed::Foreign => &mut self.reading.foreign,
            Passed::Fragment => &mut self.reading.fragments,
        };
        *count += 1;
    }
}

#[cfg(test)]
mod tests;
