//! A carrier's gateway that calls over TCP: one connection, on which nothing is sent twice.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::caller::{Request, Response};
use crate::node::Node;
use crate::wait::{until, within};

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(200);

/// One connection of a gateway.
pub struct Stream {
    socket: TcpStream,
    held: Vec<u8>,
}

impl Stream {
    /// Connects from the loopback address of the target's family.
    pub async fn new(target: SocketAddr) -> Self {
        let socket = TcpStream::connect(target).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, held: Vec::new() }
    }

    /// Connects from this address, with a receive buffer as small as the kernel allows where `deaf`.
    pub async fn from(local: &str, target: SocketAddr, deaf: bool) -> Self {
        let ip: IpAddr = local.parse().unwrap();
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        if deaf {
            socket.set_recv_buffer_size(1).unwrap();
        }
        socket.bind(SocketAddr::new(ip, 0)).unwrap();
        let socket = socket.connect(target).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, held: Vec::new() }
    }

    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Ends the connection as a process that crashes does.
    pub fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub async fn send(&mut self, request: &Request) {
        let bytes = self.bytes(request);
        self.send_bytes(&bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        within("a peer that reads", self.socket.write_all(bytes)).await.unwrap();
    }

    /// Sends as long as the peer takes it; whether it did.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        timeout(SILENCE, self.socket.write_all(bytes)).await.is_ok_and(|sent| sent.is_ok())
    }

    /// A request as it is sent here.
    pub fn bytes(&self, request: &Request) -> Vec<u8> {
        request.bytes_over("TCP", self.local())
    }

    /// The next response, whatever it answers.
    pub async fn receive(&mut self) -> Response {
        within("a SIP response", async {
            loop {
                if let Some(end) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                    let message: Vec<u8> = self.held.drain(..end + 4).collect();
                    let source = self.socket.peer_addr().unwrap_or_else(|_| self.local());
                    return Response { text: String::from_utf8_lossy(&message).into_owned(), source };
                }
                let read = self.socket.read_buf(&mut self.held).await.unwrap();
                assert!(read > 0, "closed with {:?}", String::from_utf8_lossy(&self.held));
            }
        })
        .await
    }

    /// So many bytes, whatever they are.
    pub async fn receive_bytes(&mut self, length: usize) -> Vec<u8> {
        within("bytes", async {
            while self.held.len() < length {
                assert!(self.socket.read_buf(&mut self.held).await.unwrap() > 0, "closed");
            }
            self.held.drain(..length).collect()
        })
        .await
    }

    /// The final response to `request`, whatever comes before it.
    pub async fn ask(&mut self, request: &Request) -> Response {
        self.send(request).await;
        self.answer_to(request).await
    }

    pub async fn answer_to(&mut self, request: &Request) -> Response {
        let (transaction, cseq) = (format!("branch={}", request.branch), format!("1 {}", request.method));
        loop {
            let response = self.receive().await;
            if response.text.contains(&transaction) && response.find("CSeq") == Some(cseq.as_str()) {
                return response;
            }
        }
    }

    /// A whole call: INVITE, final response, ACK.
    pub async fn place(&mut self, invite: &Request) -> Response {
        let response = self.ask(invite).await;
        self.send(&invite.ack(&response)).await;
        response
    }

    /// A call from `phone` to `number`, asserted by the network; gives the code.
    pub async fn call(&mut self, phone: &str, number: &str) -> u16 {
        self.place(&Request::invite(phone, number)).await.code()
    }

    /// Whether the peer says nothing for a while and stays.
    pub async fn is_quiet(&mut self) -> bool {
        self.held.is_empty() && timeout(SILENCE, self.socket.readable()).await.is_err()
    }

    /// Waits for the end of the connection and gives what came before it.
    pub async fn end(mut self) -> String {
        within("the end of a connection", async {
            // A reset is an end too.
            while self.socket.read_buf(&mut self.held).await.is_ok_and(|read| read > 0) {}
        })
        .await;
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Waits until so many connections have ended for this reason.
pub async fn closed(node: &Node, reason: &str, count: u64) {
    let label = format!("reason=\"{reason}\"");
    until(&format!("{count} connections closed: {reason}"), async || {
        let closed = node.metric("ringproof_sip_connections_closed_total", &[&label]).await;
        (closed == count).then_some(())
    })
    .await;
}

/// A port that is free for UDP and TCP. It lies outside the range that outgoing connections take theirs from, so that
/// none has it while a process is down.
pub fn free_port() -> u16 {
    let is_free = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
    };
    std::iter::repeat_with(|| rand::random_range(20_000..32_000)).find(|port| is_free(*port)).unwrap()
}
