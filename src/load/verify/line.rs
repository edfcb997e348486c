//! The carrier's way to the node: one UDP socket with batches, or one TCP connection, opened again when it breaks.
//!
//! Invariant: what comes is from the peer and has a size, and what cannot be sent is dropped, for the call that it
//! belongs to has a timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::VerifyError;
use crate::load::flood::local_address;
use crate::load::target::Target;
use crate::sip::flow::Transport;
use crate::sip::framing::{Cut, Framer};
use crate::transport::udp::{self, BATCH, Inbox, Outgoing, UdpSocket};

/// Longest time that opening the connection or writing to it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that one read of a stream takes at most, and at least has room for.
const READ: usize = 64 * 1024;

/// The way to one peer.
pub(super) enum Line {
    Udp(Box<Datagrams>),
    Tcp(Box<Stream>),
}

/// A socket and its batches.
pub(super) struct Datagrams {
    socket: UdpSocket,
    inbox: Inbox,
    outgoing: Outgoing,
    peer: SocketAddr,
}

/// A connection, or none for now.
pub(super) struct Stream {
    connection: Option<TcpStream>,
    framer: Framer,
    /// What has come, less what is taken.
    buffer: Vec<u8>,
    outgoing: Vec<u8>,
    peer: SocketAddr,
}

impl Line {
    /// Opens the way, and gives the address that messages leave from.
    ///
    /// # Errors
    /// `VerifyError::Way` or `VerifyError::Socket`.
    pub(super) async fn open(via: Target) -> Result<(Self, SocketAddr), VerifyError> {
        let failed = |source| VerifyError::Way { via, source };
        if via.transport == Transport::Udp {
            let local = local_address(via.address).map_err(failed)?;
            let socket = udp::open(local, 1)?.remove(0).register()?;
            let local = socket.local_addr();
            let (inbox, outgoing) = (Inbox::new(), Outgoing::new());
            return Ok((Self::Udp(Box::new(Datagrams { socket, inbox, outgoing, peer: via.address })), local));
        }
        let stream = connect(via.address).await.map_err(failed)?;
        let local = stream.local_addr().map_err(failed)?;
        let line = Stream {
            connection: Some(stream),
            framer: Framer::default(),
            buffer: Vec::new(),
            outgoing: Vec::new(),
            peer: via.address,
        };
        Ok((Self::Tcp(Box::new(line)), local))
    }

    /// Waits until there may be something to receive; for ever while there is no connection. May be dropped and called
    /// again at any time.
    pub(super) async fn readable(&self) {
        let ready = match self {
            Self::Udp(line) => line.socket.readable().await,
            Self::Tcp(line) => match &line.connection {
                Some(stream) => stream.readable().await,
                None => std::future::pending().await,
            },
        };
        // It fails when the runtime ends.
        if ready.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives `take` each message that has come, up to a batch of them. Gives whether the connection is still there.
    pub(super) fn receive(&mut self, take: impl FnMut(&[u8])) -> bool {
        match self {
            Self::Udp(line) => {
                line.receive(take);
                true
            }
            Self::Tcp(line) => line.receive(take),
        }
    }

    /// Adds the message that `write` appends to a buffer; it leaves with the next flush or before.
    pub(super) async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Udp(line) => {
                if line.outgoing.len() >= BATCH {
                    let _ = line.outgoing.flush(&line.socket).await;
                }
                let from = line.socket.local_addr().ip();
                // There is room, and a message of ours is not too long.
                let _ = line.outgoing.push(line.peer, from, write);
            }
            Self::Tcp(line) if line.connection.is_some() => write(&mut line.outgoing),
            Self::Tcp(_) => {}
        }
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) {
        match self {
            Self::Udp(line) => {
                let _ = line.outgoing.flush(&line.socket).await;
            }
            Self::Tcp(line) => line.flush().await,
        }
    }

    /// Opens the connection again where it is gone.
    pub(super) async fn mend(&mut self) {
        if let Self::Tcp(line) = self
            && line.connection.is_none()
        {
            line.connection = connect(line.peer).await.ok();
        }
    }
}

impl Datagrams {
    fn receive(&mut self, mut take: impl FnMut(&[u8])) {
        // A socket that cannot be read now is read again when it says so.
        let _ = self.inbox.receive(&self.socket);
        for datagram in self.inbox.iter() {
            if datagram.remote == self.peer && !datagram.truncated {
                take(datagram.bytes);
            }
        }
    }
}

impl Stream {
    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> bool {
        let Some(stream) = &self.connection else { return false };
        self.buffer.reserve(READ);
        match stream.try_read_buf(&mut self.buffer) {
            Ok(0) => return self.close(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => return self.close(),
        }
        let mut taken = 0;
        loop {
            match self.framer.cut(&self.buffer[taken..]) {
                Ok(Cut::Wait) => break,
                Ok(Cut::Blank(length) | Cut::Ping(length)) => taken += length,
                Ok(Cut::Message(length)) => {
                    take(&self.buffer[taken..taken + length]);
                    taken += length;
                }
                Err(_) => return self.close(),
            }
        }
        self.buffer.drain(..taken);
        true
    }

    async fn flush(&mut self) {
        let Some(stream) = &mut self.connection else { return };
        if self.outgoing.is_empty() {
            return;
        }
        let written = timeout(PATIENCE, stream.write_all(&self.outgoing)).await;
        self.outgoing.clear();
        if !matches!(written, Ok(Ok(()))) {
            self.close();
        }
    }

    fn close(&mut self) -> bool {
        self.connection = None;
        self.framer = Framer::default();
        self.buffer.clear();
        self.outgoing.clear();
        false
    }
}

async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(peer)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
