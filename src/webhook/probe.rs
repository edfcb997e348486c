//! A connection as an attempt would make it, with nothing sent over it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Uri;
use hyper::http::uri::Scheme;
use hyper_rustls::MaybeHttpsStream;
use rustls::ClientConfig;
use tower::Service;

use super::attempt::{AttemptError, Tls, cause};
use super::connector::{Check, Connector};

/// Where an endpoint was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The address that was connected to.
    pub address: Option<SocketAddr>,
    /// The certificate that it showed, in DER; `None` for plain http.
    pub certificate: Option<Vec<u8>>,
}

/// Connects to `url` under the rules and limits of an attempt, TLS handshake included, and hangs up.
///
/// # Errors
/// Those of an attempt.
pub async fn reach(url: &Uri, allow_private: bool, tls: &Tls) -> Result<Reached, AttemptError> {
    if !allow_private && url.scheme() != Some(&Scheme::HTTPS) {
        return Err(AttemptError::PlainHttp);
    }
    let check = if allow_private { Check::Any } else { Check::Public };
    let mut connector = Connector::new(check, ClientConfig::clone(&tls.config), Arc::clone(&tls.lookups));
    let stream = connector.call(url.clone()).await;
    let stream = stream.map_err(|error| {
        let error: Box<dyn Error + 'static> = error;
        cause(&*error, true)
    })?;
    Ok(match stream {
        MaybeHttpsStream::Http(tcp) => Reached { address: tcp.inner().peer_addr().ok(), certificate: None },
        MaybeHttpsStream::Https(tls) => {
            let (tcp, session) = tls.inner().get_ref();
            let certificate = session.peer_certificates().and_then(|chain| chain.first());
            let address = tcp.inner().inner().peer_addr().ok();
            Reached { address, certificate: certificate.map(|one| one.to_vec()) }
        }
    })
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::super::local_server::{self, LocalServer, Reply};
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_reached_and_shows_its_certificate() {
        let plain = LocalServer::start(Reply::Hang).await;
        let none = Tls::with_roots(RootCertStore::empty());
        let reached = reach(&plain.url().parse().unwrap(), true, &none).await.unwrap();
        assert_eq!((reached.address.unwrap().port(), reached.certificate), (plain.port(), None));

        let server = LocalServer::start_tls(Reply::Hang, "h2").await;
        let url = server.url().parse().unwrap();
        let reached = reach(&url, true, &Tls::with_roots(local_server::roots())).await.unwrap();
        assert!(reached.certificate.is_some_and(|certificate| certificate.len() > 100));
        assert!(matches!(reach(&url, true, &none).await, Err(AttemptError::Tls(_))));
    }

    #[tokio::test]
    async fn what_an_attempt_may_not_do_is_not_done() {
        let server = LocalServer::start(Reply::Hang).await;
        let none = Tls::with_roots(RootCertStore::empty());
        assert_eq!(reach(&server.url().parse().unwrap(), false, &none).await, Err(AttemptError::PlainHttp));
        let private = format!("https://localhost:{}/", server.port()).parse().unwrap();
        assert!(reach(&private, false, &none).await.unwrap_err().is_refused_address());
        assert_eq!(server.connections(), 0);
        let freed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = AttemptError::Connect(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(reach(&format!("http://{freed}/").parse().unwrap(), true, &none).await, Err(refused));
    }
}
