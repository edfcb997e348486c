//! What has come on a connection and is not taken yet.

use std::io;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::sip::framing::{Cut, FrameError, Framer, MAX_MESSAGE};

/// Bytes that the first read may bring: a few messages.
const READ: usize = 8_192;

/// The bytes, and how far they are cut. Holds no memory while there are none.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// How many of them are taken.
    taken: usize,
    framer: Framer,
    /// Whether something behind the taken ones may be whole.
    fresh: bool,
    /// Whether something was taken since the last look at the clock.
    progress: bool,
    /// When the message whose end has not come was begun, as far as is known.
    begun: Option<Instant>,
}

/// One piece of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A ping, to be answered with [`Output::pong`](super::Output::pong).
    Ping,
    /// A whole message.
    Message(&'a [u8]),
}

impl Input {
    /// The next piece, if it is there as a whole.
    ///
    /// # Errors
    /// [`FrameError`]: the connection is to be closed. [`Input::rest`] is what it could not cut.
    pub fn take(&mut self) -> Result<Option<Piece<'_>>, FrameError> {
        loop {
            let length = match self.framer.cut(&self.bytes[self.taken..])? {
                Cut::Wait => {
                    self.fresh = false;
                    return Ok(None);
                }
                Cut::Blank(length) => {
                    self.taken += length;
                    continue;
                }
                Cut::Ping(length) => {
                    self.taken += length;
                    return Ok(Some(Piece::Ping));
                }
                Cut::Message(length) => length,
            };
            let from = self.taken;
            self.taken += length;
            self.progress = true;
            return Ok(Some(Piece::Message(&self.bytes[from..self.taken])));
        }
    }

    /// As much of what is not taken as a message may hold.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        let rest = &self.bytes[self.taken..];
        &rest[..rest.len().min(MAX_MESSAGE)]
    }

    /// Whether pieces may be there without another read.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// When the unfinished message was begun.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The peer was not listened to meanwhile, so its time begins anew.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.begun = self.begun.map(|_| now);
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn read(&mut self, stream: &TcpStream) -> io::Result<usize> {
        // Only one unfinished message is left to move.
        self.bytes.drain(..std::mem::take(&mut self.taken));
        if self.bytes.capacity() - self.bytes.len() < READ / 2 {
            // As much again as is held, so that what is copied stays in proportion to what comes.
            self.bytes.reserve(self.bytes.len().max(READ));
        }
        let length = stream.try_read_buf(&mut self.bytes)?;
        self.fresh = length > 0;
        Ok(length)
    }

    /// Notes when the unfinished message was begun, and lets the memory go where nothing is left.
    pub(super) fn settle(&mut self, now: Instant) {
        let progress = std::mem::take(&mut self.progress);
        if self.taken == self.bytes.len() {
            (self.bytes, self.taken) = (Vec::new(), 0);
            self.begun = None;
        } else if progress || self.begun.is_none() {
            self.begun = Some(now);
        }
    }

    /// Bytes held and memory for them.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.bytes.len(), self.bytes.capacity())
    }
}
