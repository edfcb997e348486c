//! A client of the HTTP sides: one connection a request.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::wait::within;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header's value, which must be there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// Checks that it is a problem document with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }
}

/// A verification that was answered 201.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: String,
    pub phone: String,
    pub number: String,
}

/// The REST API as the holder of a key sees it.
pub struct Api {
    address: SocketAddr,
    key: String,
}

impl Api {
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, key: key.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], None).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, path, headers, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.request(Method::POST, path, headers, Some(body.to_string())).await
    }

    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        send(self.address, request.body(Full::from(body.unwrap_or_default())).unwrap()).await
    }

    /// Asks for a verification with these fields.
    pub async fn ask(&self, fields: &Value) -> Answer {
        self.post("/v1/verifications", fields).await
    }

    /// Begins a verification, which must succeed.
    pub async fn create(&self, phone: &str) -> Created {
        self.create_with(&json!({ "phone": phone })).await
    }

    /// As [`Api::create`], with more fields.
    pub async fn create_with(&self, fields: &Value) -> Created {
        let answer = self.ask(fields).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        Created::of(&answer.json())
    }

    /// A verification as it is now.
    pub async fn verification(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/verifications/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub async fn status(&self, id: &str) -> String {
        self.verification(id).await["status"].as_str().unwrap().to_owned()
    }

    pub async fn cancel(&self, id: &str) -> Answer {
        self.request(Method::POST, &format!("/v1/verifications/{id}/cancel"), &[], None).await
    }
}

impl Created {
    pub fn of(body: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { id: text(&body["id"]), phone: text(&body["phone"]), number: text(&body["dial"]["number"]) }
    }
}

/// A GET without a key.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = Request::get(path).header("host", address.to_string()).body(Full::default()).unwrap();
    send(address, request).await
}

/// Sends a request as it is.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    within("an HTTP answer", async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    })
    .await
}
