//! What one call's messages travel on: a UDP socket that hears its peer alone, or a TCP connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::target::Target;
use crate::sip::flow::Transport;
use crate::sip::framing::{Cut, FrameError, Framer};

/// Bytes of a datagram.
const MAX_DATAGRAM: usize = 65_535;

/// The way to one peer.
pub(super) struct Wire {
    socket: Socket,
    local: SocketAddr,
    /// A datagram, or what has come of the stream.
    buffer: Vec<u8>,
    /// How much of the stream's bytes has been handed out.
    taken: usize,
    framer: Framer,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// Why nothing more comes.
pub(super) enum WireError {
    /// The peer closed the connection.
    Closed,
    /// What comes are no messages.
    Framing(FrameError),
    /// The system's error.
    Io(io::Error),
}

impl Wire {
    pub(super) async fn open(target: Target) -> io::Result<Self> {
        let address = target.address;
        let (socket, local) = match target.transport {
            Transport::Udp => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                let local = socket.local_addr()?;
                (Socket::Udp(socket), local)
            }
            Transport::Tcp | Transport::Tls => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                (Socket::Tcp(stream), local)
            }
        };
        Ok(Self { socket, local, buffer: Vec::new(), taken: 0, framer: Framer::default() })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => socket.send(message).await.map(drop),
            Socket::Tcp(stream) => stream.write_all(message).await,
        }
    }

    /// The next message. May be dropped and called again at any time.
    pub(super) async fn receive(&mut self) -> Result<&[u8], WireError> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                self.buffer.resize(MAX_DATAGRAM, 0);
                let length = socket.recv(&mut self.buffer).await.map_err(WireError::Io)?;
                Ok(&self.buffer[..length])
            }
            Socket::Tcp(stream) => loop {
                match self.framer.cut(&self.buffer[self.taken..]).map_err(WireError::Framing)? {
                    Cut::Blank(length) | Cut::Ping(length) => self.taken += length,
                    Cut::Message(length) => {
                        let from = self.taken;
                        self.taken += length;
                        return Ok(&self.buffer[from..self.taken]);
                    }
                    Cut::Wait => {
                        self.buffer.drain(..std::mem::take(&mut self.taken));
                        if stream.read_buf(&mut self.buffer).await.map_err(WireError::Io)? == 0 {
                            return Err(WireError::Closed);
                        }
                    }
                }
            },
        }
    }
}
