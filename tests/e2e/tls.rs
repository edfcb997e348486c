//! The API over TLS.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Config, key, phone};
use crate::http::get;
use crate::node::{Node, serve};
use crate::receiver::Receiver;
use crate::wait::{until, within};

#[tokio::test]
async fn an_https_listener_serves_both_versions_of_http() {
    let receiver = Receiver::start().await;
    let made = rcgen::generate_simple_self_signed(vec!["verify.example".to_owned()]).unwrap();
    let api = "tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }\npublic_url = \"https://verify.example\"";
    let config = Config { api: api.to_owned(), ..Config::new(&receiver.url()) };
    let node = Node::start_with(config, |directory| {
        fs::create_dir(directory.join("tls")).unwrap();
        fs::write(directory.join("tls/cert.pem"), made.cert.pem()).unwrap();
        fs::write(directory.join("tls/key.pem"), made.signing_key.serialize_pem()).unwrap();
        serve(directory)
    })
    .await;
    assert!(node.printed().contains(&format!("listening  api    https://{}", node.api)), "{}", node.printed());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    for (index, protocol) in [(1, "h2"), (2, "http/1.1")] {
        let (status, body) =
            within("an answer", Box::pin(create(node.api, roots.clone(), protocol, &phone(index)))).await;
        assert_eq!((status, &body["status"]), (201, &json!("pending")));
    }
    let plain = get(node.api, "/v1/verifications").await;
    assert_eq!((plain.status, plain.text().as_str()), (400, "this port speaks TLS; use https://\n"));
    until("a connection that is counted", async || {
        (node.metric("ringproof_api_connections_closed_total", &["plain_http"]).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_puts_a_renewed_certificate_in_force_and_refuses_a_broken_one() {
    let receiver = Receiver::start().await;
    let pair = || rcgen::generate_simple_self_signed(vec!["verify.example".to_owned()]).unwrap();
    let (old, new) = (pair(), pair());
    let api = "tls = { cert = \"cert.pem\", key = \"key.pem\" }".to_owned();
    let node = Node::start_with(Config { api, ..Config::new(&receiver.url()) }, |directory| {
        fs::write(directory.join("cert.pem"), old.cert.pem()).unwrap();
        fs::write(directory.join("key.pem"), old.signing_key.serialize_pem()).unwrap();
        serve(directory)
    })
    .await;
    let trusting = |made: &CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(made.clone()).unwrap();
        roots
    };
    let created = within("an answer", Box::pin(create(node.api, trusting(old.cert.der()), "h2", &phone(1)))).await;
    assert_eq!(created.0, 201);
    // The key alone does not fit.
    fs::write(node.directory().join("key.pem"), new.signing_key.serialize_pem()).unwrap();
    node.process.signal("HUP");
    until("a refused reload", async || node.printed().contains("does not fit the first certificate").then_some(()))
        .await;
    fs::write(node.directory().join("cert.pem"), new.cert.pem()).unwrap();
    node.reload_ok().await;
    let created = within("an answer", Box::pin(create(node.api, trusting(new.cert.der()), "h2", &phone(2)))).await;
    assert_eq!(created.0, 201);
}

async fn create(address: SocketAddr, roots: RootCertStore, protocol: &str, phone: &str) -> (u16, Value) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("verify.example").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    let path = if protocol == "h2" { "https://verify.example/v1/verifications" } else { "/v1/verifications" };
    let mut request = Request::post(path)
        .header("authorization", format!("Bearer {}", key("demo")))
        .header("content-type", "application/json");
    if protocol != "h2" {
        request = request.header("host", "verify.example");
    }
    let request = request.body(Full::<Bytes>::from(json!({"phone": phone}).to_string())).unwrap();
    let io = TokioIo::new(stream);
    let answer = if protocol == "h2" {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}
