//! The `Idempotency-Key` header: 1 to 255 visible ASCII characters, a client's name for a request that it may repeat.

use axum::http::{HeaderMap, HeaderName, Method};
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::problem::{Code, Problem};
use crate::verify::request::Idempotency;

pub(super) const NAME: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_LENGTH: usize = 255;

/// Reads the header, and takes the fingerprint of the request that it names.
pub(super) fn read(
    headers: &HeaderMap,
    caller: &Caller,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let visible = !bytes.is_empty() && bytes.len() <= MAX_LENGTH && bytes.iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if visible && values.next().is_none() => Ok(Some(Idempotency {
            scope: caller.key.clone(),
            key: key.to_owned(),
            fingerprint: fingerprint(method, path, body),
        })),
        _ => Err(Problem::new(
            Code::IdempotencyKeyInvalid,
            "send one Idempotency-Key of 1 to 255 visible ASCII characters, for example \
             9b2f1c1e-5a0e-4c1b-8f43-0d3a6f6f2b11",
        )),
    }
}

fn fingerprint(method: &Method, path: &str, body: &[u8]) -> [u8; 32] {
    // Neither a method nor a path can hold a line feed, so no two requests give the same text.
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::api::scope::Scopes;
    use crate::verify::settings::ApplicationId;

    fn ask(keys: &[&[u8]], path: &str, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
        let caller = Caller {
            application: ApplicationId(0),
            name: "demo".into(),
            live: false,
            key: "00ff00ff".into(),
            scopes: Scopes::ALL,
        };
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(NAME, HeaderValue::from_bytes(key).unwrap());
        }
        read(&headers, &caller, &Method::POST, path, body)
    }

    #[test]
    fn the_key_is_scoped_to_the_api_key() {
        assert!(ask(&[], "/", b"").unwrap().is_none());
        let one = ask(&[b"k-1"], "/v1/verifications", b"{}").unwrap().unwrap();
        assert_eq!((one.scope.as_str(), one.key.as_str()), ("00ff00ff", "k-1"));
        assert!(ask(&[&[b'x'; 255]], "/", b"").unwrap().is_some());
    }

    #[test]
    fn another_path_or_body_has_another_fingerprint() {
        let print = |path, body: &[u8]| ask(&[b"k"], path, body).unwrap().unwrap().fingerprint;
        assert_eq!(print("/a", b"{}"), print("/a", b"{}"));
        assert_ne!(print("/a", b"{}"), print("/a", b"{ }"));
        assert_ne!(print("/a", b"{}"), print("/b", b"{}"));
    }

    #[test]
    fn unusable_keys_are_refused() {
        let cases: [&[&[u8]]; 6] = [&[b""], &[b"a b"], &[b"a\tb"], &[b"\xe4"], &[&[b'x'; 256]], &[b"a", b"a"]];
        for keys in cases {
            assert_eq!(ask(keys, "/", b"").unwrap_err().code(), Code::IdempotencyKeyInvalid, "{keys:?}");
        }
    }
}
