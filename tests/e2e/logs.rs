//! What a node prints: no phone number, no key, no secret, whatever happens.

use http_body_util::{BodyExt, Full};
use hyper::Request as HttpRequest;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::caller::{Caller, Request};
use crate::config::{Config, SECRET, application, key, phone, webhook};
use crate::http::Api;
use crate::node::Node;
use crate::receiver::{Receiver, Reply};
use crate::sse;
use crate::wait::within;

#[tokio::test]
async fn v13_neither_numbers_nor_keys_nor_secrets_are_printed_even_at_trace() {
    let receiver = Receiver::start().await;
    let all = webhook(&receiver.url(), "events = [\"verification.*\"]");
    let config = Config { applications: application("demo", "", &[all]), log: "trace", ..Config::new("") };
    let mut node = Node::start(config).await;
    let caller = Caller::new(node.sip()).await;
    let wrong_key = key("somebody else");
    let mut secrets: Vec<String> = vec![key("demo"), wrong_key.clone(), SECRET.to_owned(), SECRET[6..].to_owned()];
    receiver.next(Reply::Status(500));
    receiver.next(Reply::Close);

    for index in 0..60 {
        let phone = phone(7_654_300 + index);
        let fields = json!({"phone": phone, "reference": "r", "client": {"ip": "192.0.2.1"}});
        if index < 15 {
            let created = node.api().create_with(&fields).await;
            secrets.push(follow(&node, &created.id).await);
            let mut invite = Request::invite(&phone, &created.number);
            match index % 5 {
                0 => {}
                1 => invite = invite.with("Diversion: <sip:+966507777001@c>"),
                2 => invite = invite.with("Privacy: id"),
                3 => invite.set_from("+966507777002"),
                _ => invite = invite.with("P-Asserted-Identity: <tel:+966507777003>"),
            }
            assert_eq!(caller.place(&invite).await.code(), 486);
            if index % 5 == 4 {
                assert_eq!(node.api().cancel(&created.id).await.status, 200);
            }
            secrets.push(national(&created.number));
        } else {
            assert_eq!(caller.call(&phone, "+966115000042").await, 486);
        }
        secrets.push(national(&phone));
    }
    secrets.extend(["507777001", "507777002", "507777003"].map(str::to_owned));
    // Refusals of every kind, over HTTP/1.1 and HTTP/2.
    for phone in ["+966507777004", "0507777004", "+96650777700456789", "507777004"] {
        let fields = json!({"phone": phone, "client": {"ip": phone}, "replaces": phone});
        assert_eq!(node.api().ask(&fields).await.status, 422);
        assert_eq!(Api::new(node.api, &wrong_key).ask(&fields).await.status, 401);
        node.api().get(&format!("/v1/verifications/{phone}")).await;
        node.api().get(&format!("/v1/verifications?phone={phone}")).await;
    }
    secrets.push("507777004".to_owned());
    assert_eq!(create_over_http_2(&node, "+966507777005").await, 201);
    secrets.push("507777005".to_owned());
    // Broken calls.
    for text in ["INVITE sip:+966507777006@c SIP/2.0\r\n\r\n", "+966507777006", "INVITE tel:+966507777006 SIP/9.0\r\n"]
    {
        caller.send_bytes(text.as_bytes()).await;
    }
    secrets.push("507777006".to_owned());
    assert_eq!(caller.ask(&Request::new("OPTIONS")).await.code(), 200);

    node.all_delivered().await;
    node.process.kill();
    node.restart().await;
    node.process.signal("INT");
    assert_eq!(node.process.exit_code().await, Some(0));
    let printed = node.printed();
    assert!(printed.contains("\"level\":\"TRACE\""), "the test is worth nothing without the finest log");
    for secret in secrets {
        if let Some(at) = printed.find(&secret) {
            let start = printed[..at].rfind('\n').map_or(0, |end| end + 1);
            panic!("{secret} is printed: {}", printed[start..].lines().next().unwrap_or_default());
        }
    }
}

/// Opens a stream with the verification's client token, once rightly and once wrongly; gives the token.
async fn follow(node: &Node, id: &str) -> String {
    let token = node.api().verification(id).await["client"]["token"].as_str().unwrap().to_owned();
    for (query, status) in [(format!("token={token}"), 200), (format!("token={token}&x=1"), 422)] {
        let url = format!("/v1/client/events?{query}");
        assert_eq!(sse::open(node.api, &url, &[]).await.status, status);
    }
    let forged = format!("{token}x");
    let refused = sse::open(node.api, &format!("/v1/client/events?token={forged}"), &[]).await;
    assert_eq!(refused.status, 401);
    token
}

/// A Saudi number without its country code: in every way of writing it.
fn national(number: &str) -> String {
    number.strip_prefix("+966").unwrap().to_owned()
}

async fn create_over_http_2(node: &Node, phone: &str) -> u16 {
    within("an answer over HTTP/2", async {
        let stream = TokioIo::new(TcpStream::connect(node.api).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = HttpRequest::post(format!("http://{}/v1/verifications", node.api))
            .header("authorization", format!("Bearer {}", key("demo")))
            .header("content-type", "application/json")
            .body(Full::from(json!({ "phone": phone }).to_string()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        connection.abort();
        status
    })
    .await
}
