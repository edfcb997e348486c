//! Where a call goes: reading `--via`.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::sip::flow::Transport;

/// Port of SIP over UDP and TCP where none is given (RFC 3261 19.1.2).
const DEFAULT_PORT: u16 = 5060;

/// A peer: how to reach it, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// UDP or TCP.
    pub transport: Transport,
    /// Its address.
    pub address: SocketAddr,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.label(), self.address)
    }
}

/// Why a text names no place to send a call to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A transport that calls are not placed over.
    #[error("{transport}: is not a transport of this version; use udp:host:port or tcp:host:port")]
    Transport {
        /// The transport asked for.
        transport: &'static str,
    },
    /// There is no host, or it is not one.
    #[error("names no host; use udp:host:port or tcp:host:port, with an IPv6 address in brackets")]
    Host,
    /// What stands for the port is not 1 to 65535.
    #[error("has a port that is not 1 to 65535")]
    Port,
    /// The name is not known.
    #[error("{host} has no address")]
    Unresolved {
        /// The name asked for.
        host: String,
        /// The resolver's error, where it gave one.
        source: Option<std::io::Error>,
    },
}

/// Reads `udp:host:port`, `tcp:[::1]:5060` or `host[:port]`, which is UDP; the port is 5060 where none is given. Names
/// are resolved, and an IPv4 address is preferred, for that is where listeners are by default. Blocks while it asks the resolver.
///
/// # Errors
/// A [`TargetError`]: wrong use of the command, or a name without an address.
pub fn parse_via(text: &str) -> Result<Target, TargetError> {
    let (transport, place) = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("udp") => (Transport::Udp, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tcp") => (Transport::Tcp, rest),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("tls") => {
            return Err(TargetError::Transport { transport: "tls" });
        }
        _ => return Ok(Target { transport: Transport::Udp, address: resolve(text)? }),
    };
    Ok(Target { transport, address: resolve(place.strip_prefix("//").unwrap_or(place))? })
}

fn resolve(place: &str) -> Result<SocketAddr, TargetError> {
    let (host, port) = split_port(place)?;
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        // An IPv4 address written as IPv6 is that of an IPv4 peer.
        return Ok(SocketAddr::from((ip.to_canonical(), port)));
    }
    // A bare number is a forgotten host, though resolvers read it as an IPv4 address.
    if host.is_empty() || host.bytes().all(|byte| byte.is_ascii_digit()) || host.contains([':', '[', ']', '/', '@']) {
        return Err(TargetError::Host);
    }
    let unresolved = |source| TargetError::Unresolved { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|error| unresolved(Some(error)))?.collect();
    let preferred = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    preferred.copied().ok_or_else(|| unresolved(None))
}

fn split_port(place: &str) -> Result<(&str, u16), TargetError> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(TargetError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| TargetError::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, parse_port(port)?)),
            None if rest.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err(TargetError::Host),
        };
    }
    match place.split_once(':') {
        Some(_) if place.parse::<Ipv6Addr>().is_ok() => Ok((place, DEFAULT_PORT)),
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((place, DEFAULT_PORT)),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(TargetError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_its_address() {
        let cases = [
            ("udp:127.0.0.1:5062", "udp:127.0.0.1:5062"),
            ("UDP://127.0.0.1:5062", "udp:127.0.0.1:5062"),
            ("udp:127.0.0.1", "udp:127.0.0.1:5060"),
            ("127.0.0.1", "udp:127.0.0.1:5060"),
            ("udp:[::1]:5062", "udp:[::1]:5062"),
            ("[::1]", "udp:[::1]:5060"),
            ("::1", "udp:[::1]:5060"),
            ("udp:[::ffff:127.0.0.1]:5062", "udp:127.0.0.1:5062"),
            ("udp:localhost:5062", "udp:127.0.0.1:5062"),
            ("tcp:127.0.0.1:5062", "tcp:127.0.0.1:5062"),
            ("TCP://[::1]", "tcp:[::1]:5060"),
            ("tcp:localhost", "tcp:127.0.0.1:5060"),
        ];
        for (text, target) in cases {
            assert_eq!(parse_via(text).unwrap().to_string(), target, "{text}");
        }
    }

    #[test]
    fn faults_are_told_apart() {
        assert!(matches!(parse_via("tls:sip.example"), Err(TargetError::Transport { transport: "tls" })));
        for text in
            ["", "udp:", "tcp:", "udp:5060", ":5060", "[127.0.0.1]:5060", "[::1", "[::1]5060", "sip:a@127.0.0.1"]
        {
            assert!(matches!(parse_via(text), Err(TargetError::Host | TargetError::Port)), "{text}");
        }
        for text in ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:", "127.0.0.1:x", "udp:[::1]:"] {
            assert!(matches!(parse_via(text), Err(TargetError::Port)), "{text}");
        }
    }
}
