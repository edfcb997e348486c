//! What a connection has to say and the peer has not taken yet.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes that may wait before nothing more is read or answered. One answer more may stand behind them.
const ROOM: usize = 65_536;

/// The bytes of answers. Holds no memory while there are none.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Where each answer ends; pongs are none.
    ends: Vec<usize>,
    /// Until when the peer must have taken so many of the bytes.
    due: Option<(Instant, usize)>,
}

impl Output {
    /// Appends an answer. It leaves with the next flush, in the order of answers.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Appends the answer to a ping (RFC 5626 3.5.1).
    pub fn pong(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Whether more may be said before the peer has taken some.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes.len() < ROOM
    }

    /// Answers that have not left as a whole.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// When the peer must have taken what waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.map(|(time, _)| time)
    }

    /// Writes as much as the kernel takes. What then waits has `patience`, and what comes behind it as much again.
    pub(super) fn flush(&mut self, stream: &TcpStream, now: Instant, patience: Duration) -> io::Result<()> {
        let mut written = 0;
        while written < self.bytes.len() {
            match stream.try_write(&self.bytes[written..]) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.take(written);
                    return Err(error);
                }
            }
        }
        self.take(written);
        self.due = match self.due {
            _ if self.bytes.is_empty() => None,
            Some((time, left)) if left > written => Some((time, left - written)),
            _ => Some((now + patience, self.bytes.len())),
        };
        Ok(())
    }

    fn take(&mut self, written: usize) {
        if written == self.bytes.len() {
            self.bytes = Vec::new();
            self.ends = Vec::new();
        } else if written > 0 {
            self.bytes.drain(..written);
            self.ends.retain_mut(|end| {
                let waits = *end > written;
                *end = end.saturating_sub(written);
                waits
            });
        }
    }

    /// Bytes held and memory for them.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.bytes.len(), self.bytes.capacity())
    }
}
