//! Where the node listens for SIP, and what the one who started it is told of all its listeners.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::call::event::TrunkId;
use crate::config::{Configuration, SipTransport};
use crate::sip::flow::Transport;
use crate::transport::TransportError;
use crate::transport::tcp::{self, BoundListener};
use crate::transport::udp::{self, BoundSocket, PeerFilter, RECEIVE_BUFFER};

/// What is told of the listeners.
pub struct Told {
    pub sip: Vec<(Transport, SocketAddr)>,
    pub api: SocketAddr,
    /// Whether the API speaks TLS.
    pub secure: bool,
    pub admin: SocketAddr,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (transport, address) in &self.sip {
            writeln!(f, "listening  sip    {}://{address}", transport.label())?;
        }
        writeln!(f, "listening  api    {}://{}", self.api_scheme(), self.api)?;
        writeln!(f, "listening  admin  http://{}", self.admin)
    }
}

impl Told {
    pub fn api_url(&self) -> String {
        format!("{}://{}", self.api_scheme(), reachable(self.api))
    }

    const fn api_scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// What `ringproof call --via` takes.
    pub fn sip_via(&self) -> String {
        let via =
            |(transport, address): &(Transport, SocketAddr)| format!("{}:{}", transport.label(), reachable(*address));
        self.sip.first().map(via).unwrap_or_default()
    }
}

/// Tells the one who started the node. That nobody listens any more is no reason to fail.
pub fn say(text: &dyn fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// An address of this machine that can be called also where the listener is on all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The open SIP listeners.
pub struct SipSockets {
    /// What they are bound to, in the order of the configuration.
    pub bound: Vec<(Transport, SocketAddr)>,
    /// A socket for each worker of every UDP listener.
    pub udp: Vec<Vec<BoundSocket>>,
    pub tcp: Vec<BoundListener>,
    /// What lets the peers of the trunks in, and nobody else.
    pub filters: PeerFilters,
}

/// The filters of all UDP sockets.
#[derive(Debug, Default)]
pub struct PeerFilters(Vec<PeerFilter>);

impl PeerFilters {
    /// Lets these peers in alone. Where the kernel refuses, strangers are dropped behind it as before.
    pub fn admit(&self, peers: &[(IpNet, TrunkId)]) {
        let networks: Vec<IpNet> = peers.iter().map(|(network, _)| *network).collect();
        // Every socket is asked, for a filter of before would keep new peers out of it.
        let answers: Vec<_> = self.0.iter().map(|filter| filter.admit(&networks)).collect();
        let networks = networks.len();
        if answers.iter().any(|answer| matches!(answer, Ok(false))) {
            tracing::info!(networks, "too many networks for a socket filter; none is set");
        } else if let Some(Err(error)) = answers.into_iter().find(Result::is_err) {
            tracing::warn!(
                %error, networks,
                "the kernel refuses a socket filter: strangers reach the receive buffer; raise net.core.optmem_max"
            );
        }
    }
}

impl SipSockets {
    /// Opens all of them, or none.
    ///
    /// # Errors
    /// A [`TransportError`] with the address; the operator must act.
    pub fn open(configuration: &Configuration) -> Result<Self, TransportError> {
        let filters = PeerFilters::default();
        let mut opened = Self { bound: Vec::new(), udp: Vec::new(), tcp: Vec::new(), filters };
        for listener in &configuration.sip.listen {
            let bound = match listener.transport {
                SipTransport::Udp => opened.open_udp(listener.address, configuration.sip.workers)?,
                SipTransport::Tcp => opened.open_tcp(listener.address)?,
            };
            opened.bound.push(bound);
        }
        opened.filters.admit(&configuration.peers);
        Ok(opened)
    }

    fn open_udp(&mut self, listen: SocketAddr, workers: usize) -> Result<(Transport, SocketAddr), TransportError> {
        let sockets = udp::open(listen, workers)?;
        if let Some(got) = sockets.first().map(BoundSocket::receive_buffer).filter(|got| *got < RECEIVE_BUFFER) {
            tracing::warn!(
                listener = %listen, asked = RECEIVE_BUFFER, got,
                "the kernel gives a smaller receive buffer; raise net.core.rmem_max to hold bursts of calls"
            );
        }
        let local = sockets.first().map_or(listen, BoundSocket::local_addr);
        self.filters.0.extend(sockets.iter().filter_map(|socket| socket.peer_filter().ok()));
        self.udp.push(sockets);
        Ok((Transport::Udp, local))
    }

    fn open_tcp(&mut self, listen: SocketAddr) -> Result<(Transport, SocketAddr), TransportError> {
        let listener = tcp::open(listen)?;
        let local = listener.local_addr();
        self.tcp.push(listener);
        Ok((Transport::Tcp, local))
    }
}
