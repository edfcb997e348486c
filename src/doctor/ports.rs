//! Listeners: whether their ports are free, and what the kernel gives a SIP socket.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Finding, Listener, NodeState, Transport};
use crate::transport::TransportError;
use crate::transport::udp::{self, BoundSocket, RECEIVE_BUFFER};

const PORT: &str = "port";
const BUFFER: &str = "receive_buffer";

pub(super) fn check(listeners: &[Listener], workers: usize, state: NodeState) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listener in listeners {
        let (scheme, bound) = match listener.transport {
            Transport::Udp => ("udp", bind_udp(listener.address, workers)),
            Transport::Tcp => ("tcp", bind_tcp(listener.address)),
        };
        let subject = format!("{} {scheme}://{}", listener.name, listener.address);
        findings.push(judge_bind(subject.clone(), bound.as_ref().err(), state));
        if listener.transport == Transport::Udp {
            // Where the port is held, a neighbour of it tells as much.
            let any = SocketAddr::new(listener.address.ip(), 0);
            if let Ok(socket) = bound.or_else(|_| bind_udp(any, workers))
                && let Some(socket) = socket
            {
                findings.push(judge_buffer(subject, socket.receive_buffer(), socket.counts_drops()));
            }
        }
    }
    findings
}

/// Opens the listener as the node does, two of its sockets at most, and gives the first.
fn bind_udp(address: SocketAddr, workers: usize) -> io::Result<Option<BoundSocket>> {
    match udp::open(address, workers.min(2)) {
        Ok(sockets) => Ok(sockets.into_iter().next()),
        Err(
            TransportError::Create { source, .. }
            | TransportError::Bind { source, .. }
            | TransportError::Option { source, .. }
            | TransportError::Register { source, .. },
        ) => Err(source),
    }
}

/// Listens for the time of the check: a port that another one listens on can be bound in some cases, but not this.
fn bind_tcp(address: SocketAddr) -> io::Result<Option<BoundSocket>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As the node does: connections of a node that has just stopped do not hold its port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(None)
}

fn judge_bind(subject: String, error: Option<&io::Error>, state: NodeState) -> Finding {
    let Some(error) = error else { return Finding::ok(PORT, subject, "free") };
    match (error.kind(), state) {
        (io::ErrorKind::AddrInUse, NodeState::Running) => {
            Finding::ok(PORT, subject, "held by the running node of this data directory")
        }
        (io::ErrorKind::AddrInUse, _) => Finding::fail(PORT, subject, "held by another program")
            .advise("`ss -lnp` names it; stop it, or change the listener"),
        (io::ErrorKind::PermissionDenied, _) => Finding::fail(PORT, subject, "this user may not listen on that port")
            .advise("AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or a port from 1024 on"),
        (io::ErrorKind::AddrNotAvailable, _) => {
            Finding::fail(PORT, subject, "no address of this machine").advise("`ip address` lists those that there are")
        }
        _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            Finding::fail(PORT, subject, "this machine has no such address family")
                .advise("switch IPv6 on, or listen on an IPv4 address")
        }
        _ => Finding::fail(PORT, subject, error.to_string()),
    }
}

fn judge_buffer(subject: String, got: usize, counts_drops: bool) -> Finding {
    let sizes = format!("{} KiB asked, {} KiB got", RECEIVE_BUFFER >> 10, got >> 10);
    if got < RECEIVE_BUFFER {
        return Finding::warn(BUFFER, subject, sizes)
            .advise(format!("bursts of calls may be lost: sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"));
    }
    if !counts_drops {
        return Finding::warn(BUFFER, subject, format!("{sizes}; losses are not told"))
            .advise("a kernel with SO_RXQ_OVFL lets sip_socket_drops_total count them");
    }
    Finding::ok(BUFFER, subject, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn judged(error: &io::Error, state: NodeState) -> (Level, String) {
        let finding = judge_bind("x".to_owned(), Some(error), state);
        (finding.level, finding.found)
    }

    #[test]
    fn a_port_is_free_ours_or_somebody_elses() {
        assert_eq!(judge_bind("x".to_owned(), None, NodeState::Stopped).level, Level::Ok);
        let taken = || io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(judged(&taken(), NodeState::Running).0, Level::Ok);
        for state in [NodeState::Stopped, NodeState::Unknown] {
            assert_eq!(judged(&taken(), state), (Level::Fail, "held by another program".to_owned()));
        }
    }

    #[test]
    fn other_refusals_are_told_apart() {
        for (code, word) in [
            (libc::EACCES, "may not"),
            (libc::EADDRNOTAVAIL, "no address"),
            (libc::EAFNOSUPPORT, "family"),
            (libc::EMFILE, "open files"),
        ] {
            let (level, found) = judged(&io::Error::from_raw_os_error(code), NodeState::Running);
            assert!(level == Level::Fail && found.contains(word), "{found}");
        }
    }

    #[test]
    fn a_port_in_use_is_found_and_given_back() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let both = [
            Listener { name: "api", transport: Transport::Tcp, address: tcp.local_addr().unwrap() },
            Listener { name: "sip", transport: Transport::Udp, address: udp.local_addr().unwrap() },
        ];
        let levels = || -> Vec<_> {
            let findings = check(&both, 2, NodeState::Stopped);
            findings.into_iter().filter(|finding| finding.check == PORT).map(|finding| finding.level).collect()
        };
        assert_eq!(levels(), [Level::Fail, Level::Fail]);
        drop((tcp, udp));
        for _ in 0..2 {
            assert_eq!(levels(), [Level::Ok, Level::Ok]);
        }
    }

    #[test]
    fn a_small_buffer_is_a_warning_with_the_sysctl() {
        let small = judge_buffer("x".to_owned(), 212_992, true);
        assert_eq!((small.level, small.found.as_str()), (Level::Warn, "8192 KiB asked, 208 KiB got"));
        assert!(small.advice.unwrap().contains("net.core.rmem_max=8388608"));
        assert_eq!(judge_buffer("x".to_owned(), RECEIVE_BUFFER, true).level, Level::Ok);
        assert_eq!(judge_buffer("x".to_owned(), RECEIVE_BUFFER, false).level, Level::Warn);
    }
}
