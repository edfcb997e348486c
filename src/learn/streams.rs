//! TCP streams put in order (RFC 9293 3.4) and cut into messages.
//!
//! Owns the bytes that wait: for what comes before them, or for the rest of their message. A stream is followed from
//! its SYN, or, where the capture began later, from the first part that begins a message. Invariant: what waits is
//! never more than [`MAX_HELD`] bytes; a stream that would need more is given up, and counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use super::packet::{Part, PartKind};
use crate::sip::framing::{Cut, Framer};
use crate::sip::message::scan::is_start_line;

/// Most bytes that wait, of all streams.
pub(super) const MAX_HELD: usize = 64 << 20;
/// Most bytes, and most parts, that wait in one stream for a part before them. Beyond, that part is held for lost.
const MAX_AHEAD: usize = 256 << 10;
const MAX_PARTS_AHEAD: usize = 64;
/// Most streams that are followed at once.
const MAX_STREAMS: usize = 65_536;

/// Where a stream comes from and where it goes.
type Ends = (SocketAddr, SocketAddr);

/// What was not followed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Places where a part of a stream of SIP is missing in the capture.
    pub gaps: u64,
    /// Streams of SIP that went on with something else.
    pub broken: u64,
    /// Streams given up or never begun because of a cap.
    pub refused: u64,
}

/// All streams of a capture.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<Ends, Stream>,
    held: usize,
    tally: Tally,
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// Sequence number of the next byte.
    next: u32,
    framer: Framer,
    /// Bytes in order that no message has taken.
    bytes: Vec<u8>,
    /// Parts that came before their turn.
    ahead: Vec<(u32, Vec<u8>)>,
    ahead_bytes: usize,
    /// Whether a message has been seen in it.
    is_sip: bool,
}

/// A stream whose bytes are no SIP.
struct NotSip;

impl Streams {
    /// Takes a part of a stream; hands on each message that it completes.
    pub(super) fn take(&mut self, ends: Ends, part: &Part<'_>, each: impl FnMut(&[u8])) {
        if matches!(part.kind, PartKind::Opens | PartKind::Aborts) {
            self.forget(ends);
        }
        let first = match part.kind {
            PartKind::Aborts => return,
            PartKind::Opens => Some(part.sequence.wrapping_add(1)),
            PartKind::Goes | PartKind::Closes => begins_message(&part.bytes).then_some(part.sequence),
        };
        let room = self.open.len() < MAX_STREAMS;
        let stream = match self.open.entry(ends) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let Some(next) = first else { return };
                if !room {
                    self.tally.refused += 1;
                    return;
                }
                entry.insert(Stream { next, ..Stream::default() })
            }
        };
        if part.kind == PartKind::Opens {
            return;
        }
        let before = stream.held();
        let cut = stream.append(part.sequence, &part.bytes, &mut self.tally).and_then(|()| stream.cut(each));
        self.held = self.held - before + stream.held();
        let closed = part.kind == PartKind::Closes && stream.ahead.is_empty();
        let (is_sip, over) = (stream.is_sip, self.held > MAX_HELD);
        if cut.is_err() {
            self.tally.broken += u64::from(is_sip);
        } else if over {
            self.tally.refused += 1;
        }
        if cut.is_err() || closed || over {
            self.forget(ends);
        }
    }

    /// Hands on the messages that still wait for a part that never came.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Ends, &[u8])) {
        let waiting = self.open.iter().filter(|(_, stream)| !stream.ahead.is_empty());
        let mut waiting: Vec<Ends> = waiting.map(|(ends, _)| *ends).collect();
        waiting.sort_unstable();
        for ends in waiting {
            let Some(mut stream) = self.open.remove(&ends) else { continue };
            self.held -= stream.held();
            while !stream.ahead.is_empty()
                && stream.skip_gap().and_then(|()| stream.cut(|message| each(ends, message))).is_ok()
            {
                self.tally.gaps += 1;
            }
        }
    }

    /// What was not followed so far.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    fn forget(&mut self, ends: Ends) {
        if let Some(stream) = self.open.remove(&ends) {
            self.held -= stream.held();
        }
    }
}

impl Stream {
    const fn held(&self) -> usize {
        self.bytes.len() + self.ahead_bytes
    }

    /// Puts a part in its place. What the stream has had already is passed over.
    fn append(&mut self, sequence: u32, bytes: &[u8], tally: &mut Tally) -> Result<(), NotSip> {
        if !self.take_in_order(sequence, bytes) {
            self.ahead_bytes += bytes.len();
            self.ahead.push((sequence, bytes.to_vec()));
        }
        self.take_waiting();
        if self.ahead_bytes > MAX_AHEAD || self.ahead.len() > MAX_PARTS_AHEAD {
            tally.gaps += u64::from(self.is_sip);
            self.skip_gap()?;
        }
        Ok(())
    }

    /// Whether the part is not one for later.
    fn take_in_order(&mut self, sequence: u32, bytes: &[u8]) -> bool {
        let distance = sequence.wrapping_sub(self.next).cast_signed();
        if distance > 0 && !bytes.is_empty() {
            return false;
        }
        let known = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
        if let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) {
            self.bytes.extend_from_slice(fresh);
            // A packet has at most 64 KiB.
            self.next = self.next.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0));
        }
        true
    }

    fn take_waiting(&mut self) {
        let is_due = |next: u32, sequence: u32| sequence.wrapping_sub(next).cast_signed() <= 0;
        while let Some(index) = self.ahead.iter().position(|(sequence, _)| is_due(self.next, *sequence)) {
            let (sequence, bytes) = self.ahead.swap_remove(index);
            self.ahead_bytes -= bytes.len();
            self.take_in_order(sequence, &bytes);
        }
    }

    /// Goes on behind what is missing, at the first part that begins a message.
    fn skip_gap(&mut self) -> Result<(), NotSip> {
        let place = |sequence: u32, next: u32| sequence.wrapping_sub(next);
        let begins = self.ahead.iter().filter(|(_, bytes)| begins_message(bytes)).map(|(sequence, _)| *sequence);
        let next = begins.min_by_key(|sequence| place(*sequence, self.next)).ok_or(NotSip)?;
        let before = place(next, self.next);
        let start = self.next;
        self.ahead.retain(|(sequence, _)| place(*sequence, start) >= before);
        self.ahead_bytes = self.ahead.iter().map(|(_, bytes)| bytes.len()).sum();
        self.next = next;
        self.framer = Framer::default();
        self.bytes.clear();
        self.take_waiting();
        Ok(())
    }

    /// Takes whole messages off the front.
    fn cut(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), NotSip> {
        let mut taken = 0;
        loop {
            let rest = &self.bytes[taken..];
            match self.framer.cut(rest) {
                Ok(Cut::Wait) => break,
                Ok(Cut::Blank(length) | Cut::Ping(length)) => taken += length,
                Ok(Cut::Message(length)) => {
                    each(&rest[..length]);
                    self.is_sip = true;
                    taken += length;
                }
                Err(_) => return Err(NotSip),
            }
        }
        self.bytes.drain(..taken);
        Ok(())
    }
}

/// Whether the first line of `bytes` is one with which a message begins.
fn begins_message(bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', bytes).is_some_and(|end| is_start_line(&bytes[..end]))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n";
    const TWO: &[u8] = b"INVITE sip:c@d SIP/2.0\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn parts_in_any_order_and_twice_give_each_message_once() {
        let all = [ONE, TWO, ONE].concat();
        let mut parts: Vec<(u32, PartKind, &[u8])> = Vec::new();
        // The numbers wrap around within the stream.
        let start = u32::MAX - 20;
        let mut sequence = start.wrapping_add(1);
        for bytes in all.chunks(17) {
            parts.push((sequence, PartKind::Goes, bytes));
            sequence = sequence.wrapping_add(u32::try_from(bytes.len()).unwrap());
        }
        parts.swap(0, 2);
        parts.swap(3, 4);
        let again = parts[1];
        parts.insert(5, again);
        parts.insert(0, (start, PartKind::Opens, b""));
        let (streams, messages) = run(&parts);
        assert_eq!(messages, [ONE, TWO, ONE]);
        assert_eq!((streams.held, streams.tally.broken), (0, 0));
    }

    #[test]
    fn a_capture_that_began_later_is_followed_from_the_next_message() {
        let parts = [(900, PartKind::Goes, &b"half a message\r\n\r\n"[..]), (918, PartKind::Goes, TWO)];
        let (_, messages) = run(&parts);
        assert_eq!(messages, [TWO]);
    }

    #[test]
    fn behind_a_gap_it_goes_on_at_the_next_message() {
        let mut parts = vec![(0, PartKind::Opens, &b""[..]), (1, PartKind::Goes, ONE), (2000, PartKind::Goes, b"rest")];
        for index in 0..70 {
            parts.push((2004 + 100 * index, PartKind::Goes, TWO));
        }
        let (streams, messages) = run(&parts);
        assert!(messages.len() >= 2, "{}", messages.len());
        assert!(messages.iter().all(|message| message == ONE || message == TWO));
        assert!(streams.tally.gaps >= 1);
    }

    #[test]
    fn what_waits_at_the_end_for_a_lost_part_is_not_lost() {
        let (mut streams, messages) =
            run(&[(1, PartKind::Goes, ONE), (2000, PartKind::Goes, b"rest"), (2004, PartKind::Goes, TWO)]);
        assert_eq!(messages, [ONE]);
        let mut late = Vec::new();
        streams.finish(|_, message| late.push(message.to_vec()));
        assert_eq!(late, [TWO]);
        assert_eq!((streams.held, streams.tally.gaps), (0, 1));
    }

    #[test]
    fn what_is_no_sip_is_forgotten() {
        let parts = [
            (0, PartKind::Opens, &b""[..]),
            (1, PartKind::Goes, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (50, PartKind::Goes, b"more\r\n"),
        ];
        let (streams, messages) = run(&parts);
        assert!(messages.is_empty() && streams.open.is_empty());
        assert_eq!((streams.held, streams.tally.broken), (0, 0));
    }

    #[test]
    fn a_closed_stream_is_forgotten() {
        let (streams, messages) = run(&[(5, PartKind::Closes, ONE)]);
        assert_eq!(messages, [ONE]);
        assert!(streams.open.is_empty());
        let (streams, _) =
            run(&[(0, PartKind::Opens, b""), (1, PartKind::Goes, &ONE[..9]), (10, PartKind::Aborts, b"")]);
        assert!(streams.open.is_empty() && streams.held == 0);
    }

    fn run(parts: &[(u32, PartKind, &[u8])]) -> (Streams, Vec<Vec<u8>>) {
        let ends = ("192.0.2.1:5060".parse().unwrap(), "192.0.2.9:5060".parse().unwrap());
        let mut streams = Streams::default();
        let mut messages = Vec::new();
        for (sequence, kind, bytes) in parts {
            let part = Part { sequence: *sequence, kind: *kind, bytes: Cow::Borrowed(bytes) };
            streams.take(ends, &part, |message| messages.push(message.to_vec()));
        }
        (streams, messages)
    }
}
