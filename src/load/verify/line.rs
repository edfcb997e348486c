//! The carrier's way to the node: one UDP socket with batches, or one TCP connection, opened again when it breaks.
//!
//! Invariant: what comes is from the peer and has a size, what is lost on this machine is counted, and the end of a
//! connection is told once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::VerifyError;
use crate::load::flood::local_address;
use crate::load::inflow::Inflow;
use crate::load::losses::Losses;
use crate::load::target::Target;
use crate::sip::flow::Transport;
use crate::transport::udp::{self, BATCH, Inbox, Outgoing, UdpSocket};

/// Longest time that opening the connection or writing to it may take.
const PATIENCE: Duration = Duration::from_secs(5);

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
    losses: Losses,
}

/// A connection, or none for now.
pub(super) struct Stream {
    connection: Option<TcpStream>,
    inflow: Inflow,
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
            let (inbox, outgoing, losses) = (Inbox::new(), Outgoing::new(), Losses::default());
            return Ok((Self::Udp(Box::new(Datagrams { socket, inbox, outgoing, peer: via.address, losses })), local));
        }
        let stream = connect(via.address).await.map_err(failed)?;
        let local = stream.local_addr().map_err(failed)?;
        let line =
            Stream { connection: Some(stream), inflow: Inflow::default(), outgoing: Vec::new(), peer: via.address };
        Ok((Self::Tcp(Box::new(line)), local))
    }

    /// Whether messages can leave: always over UDP, and over TCP while there is a connection.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Udp(_) => true,
            Self::Tcp(line) => line.connection.is_some(),
        }
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

    /// Gives `take` each message that has come, up to a batch of them. Gives whether the connection is still there, or
    /// was gone before.
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
                    line.flush().await;
                }
                let from = line.socket.local_addr().ip();
                // There is room, and a message of ours is not too long.
                let _ = line.outgoing.push(line.peer, from, write);
            }
            Self::Tcp(line) if line.connection.is_some() => write(&mut line.outgoing),
            Self::Tcp(_) => {}
        }
    }

    /// Sends what waits. Gives whether the connection is still there, or was gone before.
    pub(super) async fn flush(&mut self) -> bool {
        match self {
            Self::Udp(line) => {
                line.flush().await;
                true
            }
            Self::Tcp(line) => line.flush().await,
        }
    }

    /// What this machine has lost since it was asked last.
    pub(super) fn take_losses(&mut self) -> Losses {
        match self {
            Self::Udp(line) => {
                line.losses.socket_drops += u64::from(line.socket.new_drops());
                std::mem::take(&mut line.losses)
            }
            Self::Tcp(_) => Losses::default(),
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
        self.losses.socket_drops += u64::from(self.inbox.kernel_drops());
        for datagram in self.inbox.iter() {
            if datagram.remote == self.peer && !datagram.truncated {
                take(datagram.bytes);
            }
        }
    }

    async fn flush(&mut self) {
        let flushed = self.outgoing.flush(&self.socket).await;
        self.losses.unsent += flushed.dropped as u64;
    }
}

impl Stream {
    fn receive(&mut self, take: impl FnMut(&[u8])) -> bool {
        let Some(stream) = &self.connection else { return true };
        let is_there = self.inflow.read(stream).is_some() && self.inflow.cut(take).is_ok();
        if !is_there {
            self.close();
        }
        is_there
    }

    async fn flush(&mut self) -> bool {
        let Some(stream) = &mut self.connection else { return true };
        if self.outgoing.is_empty() {
            return true;
        }
        let written = timeout(PATIENCE, stream.write_all(&self.outgoing)).await;
        self.outgoing.clear();
        let is_there = matches!(written, Ok(Ok(())));
        if !is_there {
            self.close();
        }
        is_there
    }

    fn close(&mut self) {
        self.connection = None;
        self.inflow = Inflow::default();
        self.outgoing.clear();
    }
}

async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(peer)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
