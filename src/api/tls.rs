//! TLS of the API's listener (RFC 8446, RFC 5246): the certificate with its key, and what is offered to a client.
//!
//! Owns the check of both files' content, and the certificate in force, which may be replaced while the node runs: new
//! handshakes get the new one. Reads no file. Invariant: an [`Identity`] that exists has a key that fits its first
//! certificate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates of a chain.
const MAX_CHAIN: usize = 16;

/// Why a certificate and a key cannot be used. The operator acts on it; it holds nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate file has no `CERTIFICATE` section.
    #[error("holds no certificate in PEM form, `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// A section is broken, or the certificate itself.
    #[error("holds a certificate that cannot be read")]
    BrokenCertificate,
    /// More certificates than any chain has.
    #[error("holds more than {MAX_CHAIN} certificates; it takes the server's own and those that lead to its root")]
    LongChain,
    /// The key file has no private key.
    #[error("holds no private key in PEM form, `-----BEGIN PRIVATE KEY-----`, or an encrypted one")]
    NoKey,
    /// The key is of no usable kind.
    #[error("holds a private key that cannot be used; RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, and Ed25519 can")]
    BrokenKey,
    /// Key and certificate do not belong together.
    #[error("holds a key that does not fit the first certificate")]
    OtherKey,
}

impl IdentityError {
    /// Whether the certificate file is at fault, not the key file.
    #[must_use]
    pub const fn is_of_certificate(self) -> bool {
        matches!(self, Self::NoCertificate | Self::BrokenCertificate | Self::LongChain)
    }
}

/// A certificate chain and its key, checked.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    expires: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.key.cert.len()).field("expires", &self.expires).finish()
    }
}

impl Identity {
    /// Reads a chain, the server's own certificate first, and its key, both in PEM form. What else the texts hold is
    /// passed over, so that both may be one file.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn read(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .take(MAX_CHAIN + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| IdentityError::BrokenCertificate)?;
        if chain.len() > MAX_CHAIN {
            return Err(IdentityError::LongChain);
        }
        let expires = expiry(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        for other in &chain[1..] {
            expiry(other)?;
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => IdentityError::NoKey,
            _ => IdentityError::BrokenKey,
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| IdentityError::BrokenKey)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => Ok(Self { key: Arc::new(key), expires }),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(IdentityError::OtherKey),
            Err(_) => Err(IdentityError::BrokenCertificate),
        }
    }

    /// End of the first certificate's validity, UTC.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::BrokenCertificate)?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The identity in force. Cheap to clone; every clone sees a replacement.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Current>);

struct Current(ArcSwap<CertifiedKey>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Puts `identity` in force.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self(Arc::new(Current(ArcSwap::new(Arc::clone(&identity.key)))))
    }

    /// Puts another identity in force. Connections that are open keep the one they began with.
    pub fn replace(&self, identity: &Identity) {
        self.0.0.store(Arc::clone(&identity.key));
    }

    /// End of the validity of the certificate in force, UTC.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        // It was read when its identity was made.
        self.0.0.load().cert.first().and_then(|first| expiry(first).ok()).unwrap_or(UNIX_EPOCH)
    }

    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_chain_and_its_key_are_taken_also_from_one_file() {
        let (certificate, key) = pair("verify.example");
        let identity = Identity::read(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(identity.expires() > UNIX_EPOCH + Duration::from_secs(2_000_000_000));
        let both = format!("# comment\n{key}{certificate}{}", pair("issuer.example").0);
        assert!(Identity::read(both.as_bytes(), both.as_bytes()).is_ok());
        assert!(!format!("{identity:?}").contains("key"));
    }

    #[test]
    fn each_fault_is_told_apart() {
        let (certificate, key) = pair("verify.example");
        let read = |certificate: &str, key: &str| Identity::read(certificate.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(read("", &key), IdentityError::NoCertificate);
        assert_eq!(read(&key, &key), IdentityError::NoCertificate);
        assert_eq!(read(&certificate[..certificate.len() / 2], &key), IdentityError::BrokenCertificate);
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(read(nonsense, &key), IdentityError::BrokenCertificate);
        assert_eq!(read(&format!("{certificate}{nonsense}"), &key), IdentityError::BrokenCertificate);
        assert_eq!(read(&certificate.repeat(17), &key), IdentityError::LongChain);
        assert_eq!(read(&certificate, &certificate), IdentityError::NoKey);
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(read(&certificate, nonsense), IdentityError::BrokenKey);
        assert_eq!(read(&certificate, &pair("other.example").1), IdentityError::OtherKey);
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_is_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..900) {
            let (certificate, key) = pair("verify.example");
            let mut damaged = certificate.into_bytes();
            let at = at.min(damaged.len());
            damaged.splice(at..at, noise.iter().copied());
            let _ = Identity::read(&damaged, key.as_bytes());
            let _ = Identity::read(&noise, &noise);
        }
    }
}
