//! What the operator configures about the API's listener.

use std::path::PathBuf;

use ipnet::IpNet;

use super::tls::Identity;

/// `[api]`, but for its address.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (of IPv6: one /64); `None` is no cap.
    pub connections_per_address: Option<usize>,
    /// Proxies whose word on a client's address counts, and who may open any number of connections.
    pub trusted_proxies: Vec<IpNet>,
    /// Scheme, host and port under which clients reach the API, without a slash at the end.
    pub public_url: Option<String>,
    /// TLS on the listener.
    pub tls: Option<TlsFiles>,
}

/// Certificate and key as the operator named them, and what the files hold.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// What relative paths are relative to.
    pub directory: PathBuf,
    /// Both, read and checked.
    pub identity: Identity,
}

/// `api.connections` without a line of its own.
pub const CONNECTIONS: u32 = 16_384;

/// `api.connections_per_address` without a line of its own.
pub const CONNECTIONS_PER_ADDRESS: u32 = 1_024;
