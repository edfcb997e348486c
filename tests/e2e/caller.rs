//! A carrier's gateway: places calls over UDP as RFC 3261 17.1.1 says, and sends whatever else a test wants.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::wait::{DEADLINE, within};

/// First wait before a retransmission, doubled after each (RFC 3261 17.1.1.2, Timer A).
const T1: Duration = Duration::from_millis(500);

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    pub uri: String,
    pub branch: String,
    /// Parameters of Via before the branch.
    pub via: String,
    /// The whole value, tag included.
    pub from: String,
    pub to: String,
    pub call_id: String,
    /// Further header fields, without line ends.
    pub fields: Vec<String>,
    pub body: String,
}

impl Request {
    /// A request without a caller's number.
    pub fn new(method: &'static str) -> Self {
        let unique = unique();
        Self {
            method,
            uri: "sip:+966115000042@127.0.0.1;user=phone".to_owned(),
            branch: format!("z9hG4bK{unique}"),
            via: ";rport".to_owned(),
            from: format!("<sip:gateway@127.0.0.1>;tag=f{unique}"),
            to: "<sip:+966115000042@127.0.0.1;user=phone>".to_owned(),
            call_id: format!("{unique}@127.0.0.1"),
            fields: Vec::new(),
            body: String::new(),
        }
    }

    /// A call whose number stands in From alone.
    pub fn invite_from_only(phone: &str, number: &str) -> Self {
        let mut invite = Self::new("INVITE");
        invite.uri = format!("sip:{number}@127.0.0.1;user=phone");
        invite.to = format!("<{}>", invite.uri);
        invite.set_from(phone);
        invite.with("Contact: <sip:127.0.0.1:5999>")
    }

    /// A call whose number is asserted, with the same one in From.
    pub fn invite(phone: &str, number: &str) -> Self {
        Self::invite_from_only(phone, number).with(&format!("P-Asserted-Identity: <sip:{phone}@127.0.0.1>"))
    }

    /// One header field more.
    pub fn with(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    /// The number that From presents; the tag stays.
    pub fn set_from(&mut self, phone: &str) {
        let tag = self.from.split(";tag=").nth(1).unwrap();
        self.from = format!("<sip:{phone}@127.0.0.1;user=phone>;tag={tag}");
    }

    /// Another transaction of the same call, as a forking proxy makes it.
    pub fn fork(&self) -> Self {
        Self { branch: format!("z9hG4bK{}", unique()), ..self.clone() }
    }

    /// The CANCEL of this INVITE (RFC 3261 9.1).
    pub fn cancel(&self) -> Self {
        Self { method: "CANCEL", fields: Vec::new(), body: String::new(), ..self.clone() }
    }

    /// The ACK of a final response that is no success (RFC 3261 17.1.1.3).
    pub fn ack(&self, response: &Response) -> Self {
        let to = response.field("To").to_owned();
        Self { method: "ACK", to, fields: Vec::new(), body: String::new(), ..self.clone() }
    }

    /// As sent over UDP from `local`.
    pub fn bytes(&self, local: SocketAddr) -> Vec<u8> {
        self.bytes_over("UDP", local)
    }

    /// As sent from `local`.
    pub fn bytes_over(&self, transport: &str, local: SocketAddr) -> Vec<u8> {
        let Self { method, uri, branch, via, from, to, call_id, fields, body } = self;
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {local}{via};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n"
        );
        for field in fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        text.into_bytes()
    }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Of equal length, so that answers can be compared.
    format!("{:08x}{:08x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A response as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub text: String,
    /// Where it came from.
    pub source: SocketAddr,
}

impl Response {
    pub fn code(&self) -> u16 {
        let code = self.text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
        code.unwrap_or_else(|| panic!("no response: {}", self.text)).parse().unwrap()
    }

    /// Name and value of each header field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        head.split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap())
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn field(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    pub fn to_tag(&self) -> &str {
        self.field("To").split(";tag=").nth(1).unwrap()
    }
}

/// One socket of a gateway.
pub struct Caller {
    socket: UdpSocket,
    target: SocketAddr,
}

impl Caller {
    /// Calls `target` from the loopback address of its family.
    pub async fn new(target: SocketAddr) -> Self {
        let local = if target.is_ipv4() { "127.0.0.1" } else { "::1" };
        Self::from(local, target).await
    }

    /// Calls `target` from this address.
    pub async fn from(local: &str, target: SocketAddr) -> Self {
        let local: IpAddr = local.parse().unwrap();
        Self { socket: UdpSocket::bind(SocketAddr::new(local, 0)).await.unwrap(), target }
    }

    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub async fn send(&self, request: &Request) {
        self.send_bytes(&request.bytes(self.local())).await;
    }

    pub async fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.target).await.unwrap();
    }

    /// The next response, whatever it answers.
    pub async fn receive(&self) -> Response {
        within("a SIP response", self.next()).await
    }

    /// A response if one has already come.
    pub fn received(&self) -> Option<Response> {
        let mut buffer = vec![0; 65_535];
        let (length, source) = self.socket.try_recv_from(&mut buffer).ok()?;
        Some(Response { text: String::from_utf8_lossy(&buffer[..length]).into_owned(), source })
    }

    /// Sends a request, again until its final response comes (Timers A and E), which it gives.
    pub async fn ask(&self, request: &Request) -> Response {
        let transaction = format!("branch={}", request.branch);
        let cseq = format!("1 {}", request.method);
        let answers =
            |response: &Response| response.text.contains(&transaction) && response.find("CSeq") == Some(cseq.as_str());
        let mut wait = T1;
        let mut waited = Duration::ZERO;
        while waited < DEADLINE {
            self.send(request).await;
            let answer = async {
                loop {
                    let response = self.next().await;
                    if answers(&response) && response.code() >= 200 {
                        return response;
                    }
                }
            };
            if let Ok(response) = timeout(wait, answer).await {
                return response;
            }
            waited += wait;
            wait = (wait * 2).min(T1 * 8);
        }
        panic!("no final response to {request:?}")
    }

    /// A whole call: INVITE, final response, ACK.
    pub async fn place(&self, invite: &Request) -> Response {
        let response = self.ask(invite).await;
        self.send(&invite.ack(&response)).await;
        response
    }

    /// A call from `phone` to `number`, asserted by the network; gives the code.
    pub async fn call(&self, phone: &str, number: &str) -> u16 {
        self.place(&Request::invite(phone, number)).await.code()
    }

    async fn next(&self) -> Response {
        let mut buffer = vec![0; 65_535];
        let (length, source) = self.socket.recv_from(&mut buffer).await.unwrap();
        Response { text: String::from_utf8_lossy(&buffer[..length]).into_owned(), source }
    }
}
