//! One call, placed and shown: the command `ringproof call`.
//!
//! The client side of an INVITE over UDP or TCP (RFC 3261 17.1.1) with the CANCEL or BYE that ends what the peer does
//! not refuse. Over TCP nothing is sent twice, and all of it on one connection. Responses are taken from the peer's
//! address only. A 2xx is acknowledged and ended where it came from; a Record-Route is not followed.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::ladder::{Escaped, Ladder};
use super::request::{BYE_NUMBER, INVITE_NUMBER, Identity, Requests};
use super::response::Response;
use super::target::Target;
use super::wire::{Wire, WireError};
use crate::e164::E164;
use crate::sip::flow::Transport;
use crate::sip::framing::FrameError;

/// T1, the round trip that RFC 3261 17.1.1.1 assumes.
pub const T1: Duration = Duration::from_millis(500);
/// Timer B: 64 times T1.
pub const TIMEOUT: Duration = Duration::from_secs(32);
/// T2 in units of T1: the longest pause between two sends of a BYE (RFC 3261 17.1.2.1).
const T2_IN_T1: u32 = 8;
/// Responses of one call that are shown; a peer that sends more is given up.
const MAX_RESPONSES: usize = 256;

/// What to call, and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The caller's number.
    pub from: E164,
    /// The number dialled.
    pub to: E164,
    /// The peer, as [`super::target::parse_via`] reads it.
    pub via: Target,
    /// Header fields to add, as [`super::header::parse_header`] reads them.
    pub headers: Vec<(String, String)>,
    /// First pause before the INVITE is sent again over UDP (Timer A).
    pub t1: Duration,
    /// How long to wait for a first response, then for a final one, then for the end of what was cancelled or
    /// answered (Timer B).
    pub timeout: Duration,
}

impl Settings {
    /// A call without further header fields, with the timers of RFC 3261.
    #[must_use]
    pub const fn new(from: E164, to: E164, via: Target) -> Self {
        Self { from, to, via, headers: Vec::new(), t1: T1, timeout: TIMEOUT }
    }
}

/// Status code of the final response, 200 to 699.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalCode(u16);

impl FinalCode {
    /// The code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether the call was refused, 4xx to 6xx: what a missed call should meet.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self.0 >= 400
    }

    /// Whether the call was answered, so that somebody may pay for it.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        self.0 < 300
    }
}

/// Why a call came to no final response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No socket, or no way to the peer's network.
    #[error("cannot send to {via}: {source}")]
    Local {
        /// The peer asked for.
        via: Target,
        /// The system's error.
        source: io::Error,
    },
    /// The peer's machine says that nobody listens there (RFC 3261 18.4).
    #[error("nobody answers at {via}: {source}")]
    Unreachable {
        /// The peer asked for.
        via: Target,
        /// The system's error.
        source: io::Error,
    },
    /// The peer ended the connection before the call had.
    #[error("{via} closed the connection before a final response")]
    Closed {
        /// The peer asked for.
        via: Target,
    },
    /// What the peer sends on the connection are no messages.
    #[error("{via} sends what is no SIP message: {source}")]
    Framing {
        /// The peer asked for.
        via: Target,
        /// What is wrong.
        source: FrameError,
    },
    /// Timer B, or a peer that rings and stays without a final response to the CANCEL too.
    #[error("no final response in {:.1} s", .waited.as_secs_f64())]
    NoFinalResponse {
        /// Time since the first INVITE.
        waited: Duration,
    },
    /// The peer floods the call with responses.
    #[error("more than {MAX_RESPONSES} responses came without an end")]
    TooManyResponses,
    /// The ladder cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Places the call, writes its ladder to `out`, and gives the final response. `clock` is the monotonic time.
///
/// A refusal gets its ACK. An answer gets ACK and BYE at once. A peer that only rings gets a CANCEL after the timeout.
///
/// # Errors
/// A [`CallError`] when there is no final response.
pub async fn place(
    settings: &Settings,
    clock: impl Fn() -> Instant,
    out: &mut impl Write,
) -> Result<FinalCode, CallError> {
    let via = settings.via;
    let wire = match tokio::time::timeout(settings.timeout, Wire::open(via)).await {
        Ok(wire) => wire.map_err(|source| failed(via, WireError::Io(source)))?,
        Err(_elapsed) => return Err(failed(via, WireError::Io(io::ErrorKind::TimedOut.into()))),
    };
    let ends = (wire.local_addr(), via);

    let requests = Requests::new(identity(), (settings.from, settings.to), ends, &settings.headers);
    let start = clock();
    let call = Call { settings, requests, wire, clock, start, ladder: Ladder::new(out), responses: 0 };
    call.run().await
}

/// Random parts of a call's names: 64 bits or more in each (RFC 3261 19.3 asks for 32 in a tag).
pub(super) fn identity() -> Identity {
    let branch = || format!("z9hG4bK{:032x}", rand::random::<u128>());
    Identity {
        branch: branch(),
        ack_branch: branch(),
        bye_branch: branch(),
        tag: format!("{:016x}", rand::random::<u64>()),
        call_id: format!("{:032x}", rand::random::<u128>()),
    }
}

/// A call on its way.
struct Call<'a, W: Write, C> {
    settings: &'a Settings,
    requests: Requests<'a>,
    wire: Wire,
    clock: C,
    start: Instant,
    ladder: Ladder<'a, W>,
    responses: usize,
}

/// States of RFC 3261 17.1.1.2, with the wait for what a CANCEL brings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    Canceling,
}

impl<W: Write, C: Fn() -> Instant> Call<'_, W, C> {
    async fn run(mut self) -> Result<FinalCode, CallError> {
        let invite = self.requests.invite();
        let cancel = self.requests.cancel();
        let label = format!("INVITE {}", self.requests.uri());
        self.send(&invite, &label).await?;
        let mut state = State::Calling;
        let mut deadline = self.start + self.settings.timeout;
        // What is sent again and again until a response to it comes (Timers A and E); nothing over TCP.
        let unreliable = self.settings.via.transport == Transport::Udp;
        let mut repeated = unreliable.then_some((invite.as_str(), label.as_str()));
        let mut pause = self.settings.t1;
        let mut again = self.start + pause;
        loop {
            let wake = if repeated.is_some() { deadline.min(again) } else { deadline };
            let response = self.response(wake).await?;
            let now = (self.clock)();
            match (response, state, repeated) {
                (Some(response), ..) if response.method == "CANCEL" => repeated = None,
                (Some(response), ..) if response.method != "INVITE" => {}
                (Some(response), ..) if response.is_final() => return self.finish(&response).await,
                (Some(_), State::Calling, _) => {
                    state = State::Proceeding;
                    repeated = None;
                    deadline = now + self.settings.timeout;
                }
                (Some(_), ..) => {}
                (None, _, Some((message, label))) if now < deadline => {
                    self.send(message, &format!("{label} (again)")).await?;
                    pause *= 2;
                    again = now + pause;
                }
                (None, State::Proceeding, _) => {
                    self.send(&cancel, "CANCEL").await?;
                    state = State::Canceling;
                    repeated = unreliable.then_some((&cancel, "CANCEL"));
                    pause = self.settings.t1;
                    again = now + pause;
                    deadline = now + self.settings.timeout;
                }
                (None, ..) => return Err(CallError::NoFinalResponse { waited: now.duration_since(self.start) }),
            }
        }
    }

    /// Acknowledges the final response, ends what it answered, and writes the last line.
    async fn finish(mut self, response: &Response) -> Result<FinalCode, CallError> {
        let code = FinalCode(response.code);
        let after = self.elapsed();
        let mut note = "";
        if code.is_answer() {
            note = if self.hang_up(response).await? {
                ": the call was answered, and ended with BYE"
            } else {
                ": the call was answered, and its BYE has no answer"
            };
        } else {
            let ack = self.requests.ack_refusal(&response.to);
            self.send(&ack, "ACK").await?;
        }
        self.ladder.ended(after, format_args!("{} {}", response.code, Escaped(&response.phrase)), note)?;
        Ok(code)
    }

    /// ACK and BYE for a 2xx, the BYE repeated until it is answered (RFC 3261 17.1.2.2). Gives whether it was.
    async fn hang_up(&mut self, response: &Response) -> Result<bool, CallError> {
        let contact = response.contact.as_deref();
        let ack = self.requests.ack_answer(contact, &response.to);
        let bye = self.requests.bye(contact, &response.to);
        self.send(&ack, "ACK").await?;
        self.send(&bye, "BYE").await?;
        let deadline = (self.clock)() + self.settings.timeout;
        // Over TCP the BYE is not repeated.
        let unreliable = self.settings.via.transport == Transport::Udp;
        let mut pause = if unreliable { self.settings.t1 } else { self.settings.timeout };
        let mut again = (self.clock)() + pause;
        loop {
            match self.response(deadline.min(again)).await? {
                Some(response) if response.method == "BYE" && response.is_final() => return Ok(true),
                // The peer repeats its 2xx until it sees the ACK (RFC 3261 13.2.2.4).
                Some(response) if response.method == "INVITE" && response.is_final() => {
                    self.send(&ack, "ACK (again)").await?;
                }
                Some(_) => {}
                None if !unreliable || (self.clock)() >= deadline => return Ok(false),
                None => {
                    self.send(&bye, "BYE (again)").await?;
                    pause = (pause * 2).min(self.settings.t1 * T2_IN_T1);
                    again = (self.clock)() + pause;
                }
            }
        }
    }

    async fn send(&mut self, message: &str, label: &str) -> Result<(), CallError> {
        let after = self.elapsed();
        let sent = self.wire.send(message.as_bytes()).await;
        sent.map_err(|source| failed(self.settings.via, WireError::Io(source)))?;
        Ok(self.ladder.sent(after, label)?)
    }

    /// The next response to this call's requests, shown; `None` once it is `wake`. Anything else that comes is passed
    /// over.
    async fn response(&mut self, wake: Instant) -> Result<Option<Response>, CallError> {
        // The clock is asked each time, for a peer that never pauses would keep a timer from being seen.
        while (self.clock)() < wake {
            let received = tokio::time::timeout_at(wake.into(), self.wire.receive()).await;
            let parsed = match received {
                Err(_elapsed) => continue,
                Ok(Err(error)) => return Err(failed(self.settings.via, error)),
                Ok(Ok(message)) => Response::parse(message),
            };
            let Some(response) = parsed.filter(|response| self.is_ours(response)) else { continue };
            self.responses += 1;
            if self.responses > MAX_RESPONSES {
                return Err(CallError::TooManyResponses);
            }
            self.show(&response)?;
            return Ok(Some(response));
        }
        Ok(None)
    }

    /// RFC 3261 17.1.3: the branch and the `CSeq` method, here with its number too.
    fn is_ours(&self, response: &Response) -> bool {
        let identity = self.requests.identity();
        let (branch, number) = match response.method.as_str() {
            "INVITE" | "CANCEL" => (&identity.branch, INVITE_NUMBER),
            "BYE" => (&identity.bye_branch, BYE_NUMBER),
            _ => return false,
        };
        response.branch == *branch && response.number == number
    }

    fn show(&mut self, response: &Response) -> io::Result<()> {
        let mut line = format!("{} {}", response.code, Escaped(&response.phrase));
        if response.method != "INVITE" {
            line = format!("{line} ({})", response.method);
        }
        if let Some(reason) = &response.reason {
            line = format!("{line}   Reason: {}", Escaped(reason));
        }
        self.ladder.received(self.elapsed(), line)
    }

    fn elapsed(&self) -> Duration {
        (self.clock)().duration_since(self.start)
    }
}

fn failed(via: Target, error: WireError) -> CallError {
    match error {
        WireError::Closed => CallError::Closed { via },
        WireError::Framing(source) => CallError::Framing { via, source },
        WireError::Io(source) => match source.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut => CallError::Unreachable { via, source },
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CallError::Closed { via },
            _ => CallError::Local { via, source },
        },
    }
}

#[cfg(test)]
mod tests;
