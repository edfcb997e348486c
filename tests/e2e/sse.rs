//! A browser's side of a stream, over HTTP/1.1 or HTTP/2: its head, then one block after another.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::http::Answer;
use crate::wait::within;

/// A connection that takes one request after another; over HTTP/2 also at once.
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
    task: JoinHandle<()>,
}

enum Sender {
    One(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

/// An answer that may go on.
pub struct Events {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    /// Held so that the connection lives as long.
    connection: Option<Connection>,
}

/// One block: a comment, a wait to come back, or an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
    pub retry: Option<u64>,
    pub comment: bool,
}

impl Block {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap()
    }
}

impl Connection {
    pub async fn http_1(address: SocketAddr) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) });
        Self { address, sender: Sender::One(sender), task }
    }

    pub async fn http_2(address: SocketAddr) -> Self {
        Self::http_2_with_window(address, 65_535).await
    }

    /// One whose answers may have so many bytes ahead of their being read.
    pub async fn http_2_with_window(address: SocketAddr, bytes: u32) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.initial_stream_window_size(bytes).handshake(stream).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) });
        Self { address, sender: Sender::Two(sender), task }
    }

    pub async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Events {
        let uri = match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("http://{}{path}", self.address),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self.sender, Sender::One(_)) {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        let response = within("the head of an answer", async {
            match &mut self.sender {
                Sender::One(sender) => sender.send_request(request).await,
                Sender::Two(sender) => sender.send_request(request).await,
            }
        });
        let (head, body) = response.await.unwrap().into_parts();
        let status = head.status.as_u16();
        Events { status, headers: head.headers, body, text: String::new(), connection: None }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens a stream on a connection of its own.
pub async fn open(address: SocketAddr, url: &str, headers: &[(&str, &str)]) -> Events {
    let mut connection = Connection::http_1(address).await;
    let mut events = connection.ask(Method::GET, url, headers).await;
    events.connection = Some(connection);
    events
}

impl Events {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The next block; `None` at the clean end, `Err` where it breaks off.
    pub async fn next(&mut self) -> Result<Option<Block>, hyper::Error> {
        within("a block of the stream", async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let rest = self.text.split_off(end + 2);
                    let block = std::mem::replace(&mut self.text, rest);
                    return Ok(Some(read(&block)));
                }
                let Some(frame) = self.body.frame().await else {
                    assert_eq!(self.text, "", "half a block");
                    return Ok(None);
                };
                self.text.push_str(std::str::from_utf8(frame?.data_ref().unwrap()).unwrap());
            }
        })
        .await
    }

    /// The next event, past comments and waits.
    pub async fn event(&mut self) -> Block {
        loop {
            let block = self.next().await.unwrap().expect("an event, not the end");
            if !block.event.is_empty() {
                return block;
            }
        }
    }

    /// What a status event tells: its id, and its data.
    pub async fn status_event(&mut self) -> (String, Value) {
        let block = self.event().await;
        assert_eq!(block.event, "status", "{block:?}");
        (block.id().to_owned(), block.json())
    }

    /// Checks that nothing but the end follows.
    pub async fn ends(mut self) {
        let end = self.next().await.unwrap().unwrap();
        assert_eq!((end.event.as_str(), end.id, end.data.as_str()), ("end", None, "{}"));
        assert_eq!(self.next().await.unwrap(), None);
    }

    /// The whole answer, which must be one that ends.
    pub async fn whole(self) -> Answer {
        let Self { status, headers, body, connection: _open, .. } = self;
        let body = within("the whole answer", body.collect()).await.unwrap().to_bytes();
        Answer { status, headers, body }
    }
}

fn read(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")) {
            ("", _) => block.comment = true,
            ("id", value) => block.id = Some(value.to_owned()),
            ("event", value) => value.clone_into(&mut block.event),
            ("data", value) => block.data.push_str(value),
            ("retry", value) => block.retry = Some(value.parse().unwrap()),
            _ => panic!("unknown line {line:?}"),
        }
    }
    block
}
