//! Connections to addresses that were checked: the way in which an endpoint's host becomes a stream.
//!
//! Owns resolution, the check of every address and the limits of their time. Does not speak HTTP.
//! Invariant: the address that was checked is the one that is connected to, for names and for literals.

use std::error::Error;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::Service;

use super::address::special_range;
use super::attempt::{ATTEMPT, AttemptError, excerpt};

/// Longest time for a TCP connection, and for the lookup before it.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// Lookups that may run at once for one endpoint. The system's resolver blocks a thread that nothing can take back, so
/// a dead name server must not take more of them than this.
pub(super) const LOOKUPS: usize = 2;

/// Lookups that may run at once for all endpoints: a quarter of the threads for blocking work (512), which the store's
/// reads need too.
pub(super) const ALL_LOOKUPS: usize = 128;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Makes checked connections for one endpoint, in TLS where its address says `https`.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<Resolver>>,
    check: Check,
}

/// Whether addresses must be public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Public addresses only.
    Public,
    /// Any address: the operator allows private ones.
    Any,
}

impl Check {
    fn allows(self, address: IpAddr) -> Result<(), AttemptError> {
        match special_range(address) {
            Some(range) if self == Self::Public => Err(AttemptError::Refused { address, range }),
            _ => Ok(()),
        }
    }
}

impl Connector {
    pub(super) fn new(check: Check, tls: ClientConfig, all_lookups: Arc<Semaphore>) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS));
        let mut http = HttpConnector::new_with_resolver(Resolver { check, lookups, all_lookups });
        http.enforce_http(false);
        http.set_nodelay(true);
        // Shared out among a name's addresses, so that a dead first one leaves time for the second.
        http.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        Self { https: https.wrap_connector(http), check }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // A literal never meets the resolver, so it is checked here.
        if let Some(address) = literal(&uri)
            && let Err(refused) = self.check.allows(address)
        {
            return Box::pin(async { Err(refused.into()) });
        }
        let connecting = self.https.call(uri);
        // The client finishes a connection in the background when an attempt finds another one first, so the limit of
        // the attempt alone would not end a TLS handshake that hangs.
        Box::pin(async { timeout(ATTEMPT, connecting).await.unwrap_or_else(|_| Err(AttemptError::Timeout.into())) })
    }
}

fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// The system's resolver, answering with allowed addresses only.
#[derive(Clone)]
struct Resolver {
    check: Check,
    /// Places of this endpoint.
    lookups: Arc<Semaphore>,
    /// Places of all endpoints.
    all_lookups: Arc<Semaphore>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = AttemptError;
    type Future = BoxFuture<Self::Response, AttemptError>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (check, lookups, all) = (self.check, Arc::clone(&self.lookups), Arc::clone(&self.all_lookups));
        let resolving = async move {
            // First its own: who waits for those of all holds no more of them than an endpoint may have.
            let own = lookups.acquire_owned().await.map_err(|_| AttemptError::Aborted)?;
            let of_all = all.acquire_owned().await.map_err(|_| AttemptError::Aborted)?;
            let lookup = tokio::task::spawn_blocking(move || {
                // Given back by the thread itself: whoever waits may give up long before.
                let _places = (own, of_all);
                (name.as_str(), 0).to_socket_addrs()
            });
            let found = lookup.await.map_err(|_| AttemptError::Aborted)?;
            let found = found.map_err(|error| AttemptError::Resolve(excerpt(&error)))?;
            allowed(check, found).map(Vec::into_iter)
        };
        Box::pin(async { timeout(CONNECT, resolving).await.unwrap_or(Err(AttemptError::ConnectTimeout)) })
    }
}

/// The addresses among `found` that may be connected to.
fn allowed(check: Check, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, AttemptError> {
    let mut refused = AttemptError::Resolve("no address".to_owned());
    let mut kept = Vec::new();
    for address in found {
        match check.allows(address.ip()) {
            Ok(()) if kept.len() < ADDRESSES => kept.push(address),
            Ok(()) => break,
            Err(error) => refused = error,
        }
    }
    if kept.is_empty() { Err(refused) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_of_a_name_are_left_out() {
        let found = ["10.0.0.1:0", "8.8.8.8:0", "[::1]:0", "1.1.1.1:0"].map(|text| text.parse().unwrap());
        let kept = allowed(Check::Public, found.into_iter()).unwrap();
        assert_eq!(kept, ["8.8.8.8:0".parse().unwrap(), "1.1.1.1:0".parse().unwrap()]);
        assert_eq!(allowed(Check::Any, found.into_iter()).unwrap(), found);
    }

    #[test]
    fn name_with_private_addresses_only_is_refused() {
        let found = ["10.0.0.1:0".parse().unwrap()];
        let refused = AttemptError::Refused { address: "10.0.0.1".parse().unwrap(), range: "private" };
        assert_eq!(allowed(Check::Public, found.into_iter()), Err(refused));
    }

    #[test]
    fn addresses_of_one_name_are_bounded() {
        let many = (0..1000u16).map(|port| SocketAddr::from(([8, 8, 8, 8], port)));
        assert_eq!(allowed(Check::Public, many).unwrap().len(), ADDRESSES);
    }

    #[test]
    fn literals_are_seen_in_either_form() {
        let host = |text: &str| literal(&text.parse().unwrap());
        assert_eq!(host("https://127.0.0.1:8443/x"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(host("https://[::1]/"), Some("::1".parse().unwrap()));
        assert_eq!(host("https://localhost/"), None);
    }
}
