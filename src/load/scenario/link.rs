//! What the messages of all calls travel on: one socket over UDP, one connection over TCP, as SIPp's `u1` and `t1`.
//!
//! Owns buffers and batches; knows no calls. Invariant: what waits to be sent or read is bounded, and over UDP only
//! what comes from the peer is handed out. RFC 3261 18.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::load::flood::local_address;
use crate::load::inflow::Inflow;
use crate::load::losses::Losses;
use crate::load::target::Target;
use crate::sip::flow::Transport;
use crate::sip::framing::FrameError;
use crate::transport::TransportError;
use crate::transport::udp::{self, Inbox, Outgoing, PushError, UdpSocket};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes that wait for a peer that does not read; with more, its connection is given up.
const MAX_WAITING: usize = 16 << 20;

/// Why nothing travels.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the connection, or takes nothing from it.
    #[error("the peer closed the connection")]
    Closed,
    /// What the peer sends on the connection are no messages.
    #[error("the peer sends what is no SIP message: {0}")]
    Framing(#[from] FrameError),
    /// The system's error.
    #[error(transparent)]
    System(#[from] io::Error),
    /// No socket.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The way to the peer.
pub(super) enum Link {
    Tcp(Connection),
    Udp(Box<Datagrams>),
}

impl Link {
    pub(super) async fn open(target: Target) -> Result<Self, LinkError> {
        match target.transport {
            Transport::Udp => Ok(Self::Udp(Box::new(Datagrams::open(target.address)?))),
            Transport::Tcp | Transport::Tls => Ok(Self::Tcp(Connection::open(target.address).await?)),
        }
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Tcp(connection) => connection.local,
            Self::Udp(datagrams) => datagrams.socket.local_addr(),
        }
    }

    /// Sends messages, or has them wait.
    pub(super) async fn send(&mut self, messages: impl Iterator<Item = Vec<u8>>) -> Result<(), LinkError> {
        match self {
            Self::Tcp(connection) => connection.send(messages),
            Self::Udp(datagrams) => {
                datagrams.send(messages).await;
                Ok(())
            }
        }
    }

    /// Waits until there may be something to receive, or room for what waits. May be dropped and called again.
    pub(super) async fn ready(&self) -> io::Result<()> {
        match self {
            Self::Tcp(connection) => {
                let waits = connection.written < connection.output.len();
                let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                connection.stream.ready(interest).await.map(drop)
            }
            Self::Udp(datagrams) => datagrams.socket.readable().await,
        }
    }

    /// Hands out what has come.
    pub(super) fn receive(&mut self, take: impl FnMut(&[u8])) -> Result<(), LinkError> {
        match self {
            Self::Tcp(connection) => {
                connection.write()?;
                connection.receive(take)
            }
            Self::Udp(datagrams) => datagrams.receive(take),
        }
    }

    /// Messages that this machine has lost.
    pub(super) fn losses(&self) -> Losses {
        match self {
            Self::Tcp(_) => Losses::default(),
            Self::Udp(datagrams) => {
                let mut losses = datagrams.losses;
                losses.socket_drops += u64::from(datagrams.socket.new_drops());
                losses
            }
        }
    }
}

/// A socket of its own for the peer.
pub(super) struct Datagrams {
    socket: UdpSocket,
    peer: SocketAddr,
    inbox: Inbox,
    outgoing: Outgoing,
    losses: Losses,
}

impl Datagrams {
    fn open(peer: SocketAddr) -> Result<Self, LinkError> {
        let bound = udp::open(local_address(peer)?, 1)?.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable);
        let socket = bound.map_err(io::Error::from)?.register()?;
        Ok(Self { socket, peer, inbox: Inbox::new(), outgoing: Outgoing::new(), losses: Losses::default() })
    }

    async fn send(&mut self, messages: impl Iterator<Item = Vec<u8>>) {
        let from = self.socket.local_addr().ip();
        for message in messages {
            let mut pushed = self.outgoing.push(self.peer, from, |out| out.extend_from_slice(&message));
            if pushed == Err(PushError::Full) {
                self.flush().await;
                pushed = self.outgoing.push(self.peer, from, |out| out.extend_from_slice(&message));
            }
            self.losses.unsent += u64::from(pushed.is_err());
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        let flushed = self.outgoing.flush(&self.socket).await;
        self.losses.unsent += flushed.dropped as u64;
    }

    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), LinkError> {
        self.inbox.receive(&self.socket)?;
        self.losses.socket_drops += u64::from(self.inbox.kernel_drops());
        for datagram in self.inbox.iter() {
            let is_peer = (datagram.remote.ip(), datagram.remote.port()) == (self.peer.ip(), self.peer.port());
            if is_peer {
                take(datagram.bytes);
            }
        }
        Ok(())
    }
}

/// A connection with what waits in both directions.
pub(super) struct Connection {
    stream: TcpStream,
    local: SocketAddr,
    input: Inflow,
    output: Vec<u8>,
    /// How much of the output is gone.
    written: usize,
}

impl Connection {
    async fn open(peer: SocketAddr) -> io::Result<Self> {
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(peer));
        let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Self { stream, local, input: Inflow::default(), output: Vec::new(), written: 0 })
    }

    fn send(&mut self, messages: impl Iterator<Item = Vec<u8>>) -> Result<(), LinkError> {
        for message in messages {
            self.output.extend_from_slice(&message);
        }
        self.write()?;
        if self.output.len() - self.written > MAX_WAITING { Err(LinkError::Closed) } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), LinkError> {
        while self.written < self.output.len() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.output.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(_) => return Err(LinkError::Closed),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    fn receive(&mut self, take: impl FnMut(&[u8])) -> Result<(), LinkError> {
        self.input.read(&self.stream).ok_or(LinkError::Closed)?;
        self.input.cut(take).map_err(LinkError::from)
    }
}
