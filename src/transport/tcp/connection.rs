//! One connection: its two buffers, its deadlines, its end.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{CloseReason, Input, Output, Settings};
use crate::sip::flow::Flow;

/// How long a connection that this side ends is kept for the peer to take the last answer.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    flow: Flow,
    idle: Duration,
    patience: Duration,
    input: Input,
    output: Output,
    /// When bytes came last.
    heard: Instant,
}

impl Connection {
    /// Takes an accepted stream.
    #[must_use]
    pub fn new(stream: TcpStream, flow: Flow, settings: &Settings) -> Self {
        let (input, output) = (Input::default(), Output::default());
        let (idle, patience) = (settings.idle, settings.message);
        Self { stream, flow, idle, patience, input, output, heard: Instant::now() }
    }

    /// The way that its messages take.
    #[must_use]
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// What came, and what is to be said.
    pub fn buffers(&mut self) -> (&mut Input, &mut Output) {
        (&mut self.input, &mut self.output)
    }

    /// Whether more may be said before the peer has taken some.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Answers that have not left as a whole.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.output.unsent()
    }

    /// Waits until bytes have come that may hold a piece, and sends what waits meanwhile. May be dropped and called
    /// again at any time.
    ///
    /// # Errors
    /// The reason for which the connection is to be closed.
    pub async fn receive(&mut self) -> Result<(), CloseReason> {
        loop {
            let has_room = self.output.has_room();
            if has_room && self.input.is_fresh() {
                return Ok(());
            }
            let (deadline, reason) = self.deadline();
            let ready = tokio::select! {
                biased;
                ready = self.stream.ready(self.interest()) => ready.map_err(|_| CloseReason::Lost)?,
                () = sleep_until(deadline) => return Err(reason),
            };
            if ready.is_writable() && !self.output.is_empty() {
                self.flush()?;
                if !has_room && self.output.has_room() {
                    self.input.begin_anew(Instant::now());
                }
            }
            if has_room && ready.is_readable() {
                match self.input.read(&self.stream) {
                    Ok(0) => return Err(CloseReason::Peer),
                    Ok(_) => {
                        self.heard = Instant::now();
                        return Ok(());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Err(CloseReason::Lost),
                }
            }
        }
    }

    /// To be called when pieces were taken or answers given: sends what the kernel takes at once, and lets go of
    /// memory that is not needed any more.
    ///
    /// # Errors
    /// The reason for which the connection is to be closed.
    pub fn settle(&mut self) -> Result<(), CloseReason> {
        self.input.settle(Instant::now());
        self.flush()
    }

    /// Sends what waits and ends the stream, before the connection is dropped. What the peer still sends is read and
    /// dropped for a moment, for an unread byte would make the kernel take back what was sent. Gives how many answers
    /// did not leave.
    pub async fn close(&mut self) -> usize {
        let farewell = async {
            while !self.output.is_empty() {
                self.stream.writable().await?;
                self.flush().map_err(|_| io::ErrorKind::ConnectionReset)?;
            }
            self.stream.shutdown().await?;
            // On the heap, for what stands here is part of every open connection.
            let mut dropped = vec![0; 4_096];
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut dropped) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        };
        // However it ends, the connection does.
        let _ = timeout(LAST_WORDS, farewell).await;
        self.output.unsent()
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn flush(&mut self) -> Result<(), CloseReason> {
        let flushed = self.output.flush(&self.stream, Instant::now(), self.patience);
        flushed.map_err(|_| CloseReason::Lost)
    }

    fn interest(&self) -> Interest {
        match (self.output.has_room(), self.output.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, _) => Interest::WRITABLE,
        }
    }

    /// The next moment at which the peer has been too slow, and at what.
    fn deadline(&self) -> (Instant, CloseReason) {
        let slow_reader = self.output.due().map(|due| (due, CloseReason::SlowReader));
        let slow_message = self.input.begun().map(|begun| (begun + self.patience, CloseReason::SlowMessage));
        let idle = Some((self.heard + self.idle, CloseReason::Idle));
        let silent = if self.output.has_room() { [slow_message, idle] } else { [None, None] };
        let times = silent.into_iter().chain([slow_reader]).flatten();
        times.min_by_key(|(time, _)| *time).unwrap_or((self.heard + self.idle, CloseReason::Idle))
    }
}
