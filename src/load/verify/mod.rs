//! Whole verifications: create over HTTP, call as a carrier, receive the signed webhook.
//!
//! Owns the command `ringproof load verify` behind its arguments. One thread does it all, so that a node beside it has
//! the other cores: connections to the API, the carrier's socket, and the receiver of webhooks. Invariant: each
//! verification that begins is counted once, as ended when its call has a final response and its webhook has come with
//! the right signature, or as lost with a code that tells what it lacked.
//!
//! "create", "INVITE to final" and "INVITE to webhook" count from the moment of sending, "whole verification" from the
//! moment at which it was to begin: a node that falls behind shows there.

mod api;
pub mod arguments;
mod board;
mod body;
mod carrier;
mod line;
mod local;
mod messages;
mod receiver;
pub mod secret;
mod work;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use secrecy::{SecretSlice, SecretString};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use api::{Api, ApiError, parse_api};

use self::api::Client;
use self::board::Board;
use self::carrier::Carrier;
use self::line::Line;
use self::messages::Messages;
use self::receiver::Receiver;
use self::work::Work;
use super::flood::lacks_descriptors;
use super::flood::numbers::Numbers;
use super::flood::timers::Timers;
use super::ladder::Escaped;
use super::losses::Losses;
use super::pace::{Bounds, Pace, Pacer};
use super::progress::{Line as Progress, PERIOD};
use super::tally::Tally;
use super::target::Target;
use crate::sip::flow::Transport;
use crate::transport::TransportError;

/// Created verifications that wait for the carrier.
const WAITING: usize = 4_096;
/// How long verifications in flight still have after an interrupt.
const LAST: Duration = Duration::from_secs(1);
/// How long the answers to the last webhooks have at most to leave.
const LINGER: Duration = Duration::from_secs(1);

/// What to verify where, and how much of it.
#[derive(Debug)]
pub struct Settings {
    /// The node's API.
    pub api: Api,
    /// The API key.
    pub key: SecretString,
    /// How requests are made.
    pub protocol: Protocol,
    /// Connections to the API, at least one.
    pub connections: usize,
    /// The phones to verify, spread over the verifications.
    pub phones: Numbers,
    /// The node's SIP listener.
    pub via: Target,
    /// Where webhooks are received.
    pub listen: SocketAddr,
    /// Secrets that a webhook may be signed with.
    pub secrets: Vec<SecretSlice<u8>>,
    /// When verifications begin.
    pub pace: Pace,
    /// Where the load ends.
    pub bounds: Bounds,
    /// How long a verification may take.
    pub timeout: Duration,
}

/// How requests to the API are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One at a time on each connection.
    Http1,
    /// Many at once on each connection, with prior knowledge.
    Http2,
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The monotonic time.
    pub instant: fn() -> Instant,
    /// Time of day, which signatures are checked against.
    pub utc: fn() -> SystemTime,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// The counts.
    pub tally: Tally,
    /// From the start until the last verification began or ended.
    pub elapsed: Duration,
    /// What this machine has lost of it.
    pub losses: Losses,
}

/// Why nothing was verified, or not to the end. The user corrects the command line, or what it names.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The receiver of webhooks has no port.
    #[error("cannot receive webhooks at {address}: {source}; --listen takes a free address of this machine")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The API takes no connection.
    #[error("{url} takes no connection: {source}; is the node running, and is --api its api.listen?")]
    Connect {
        /// Where verifications are created.
        url: String,
        /// The system's error.
        source: io::Error,
    },
    /// The system gives no further file descriptor.
    #[error("no file descriptor is left for the load: {source}; raise 'ulimit -n', or take fewer --api-connections")]
    Descriptors {
        /// The system's error.
        source: io::Error,
    },
    /// The API refuses the first request as it would every other.
    #[error("no verification can be created: {0}")]
    Refused(Refusal),
    /// The API key holds what no header field can.
    #[error("the API key has a character that no key has; --key takes env:NAME, file:PATH or the key itself")]
    Key,
    /// There is no way to the node's SIP listener.
    #[error("{via} cannot be reached: {source}; is --via the node's SIP listener?")]
    Way {
        /// The peer asked for.
        via: Target,
        /// The system's error.
        source: io::Error,
    },
    /// No UDP socket.
    #[error(transparent)]
    Socket(#[from] TransportError),
    /// No event loop or no timer.
    #[error("the system fails the load: {0}")]
    System(#[from] io::Error),
}

impl VerifyError {
    /// Whether the command line, or the API that it names, is to be corrected. A SIP listener that is not there is none
    /// of it, as in the other loads.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        !matches!(self, Self::Descriptors { .. } | Self::Way { .. } | Self::Socket(_) | Self::System(_))
    }
}

/// How the API refuses: its problem (RFC 9457), which is the peer's text and is shown escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// Title of the problem, as it came; may be empty.
    pub title: String,
    /// Its detail; may be empty.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        for text in [&self.title, &self.detail].into_iter().filter(|text| !text.is_empty()) {
            write!(f, ": {}", Escaped(text))?;
        }
        f.write_str(hint(self.status))
    }
}

/// What a status says about the command line.
const fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; look at --key",
        404 | 405 | 421 => "; look at --api, which is the address before /v1",
        422 => "; look at --phones",
        _ => "",
    }
}

/// Verifies, shows how far it is where standard error is a terminal, and gives what became of it. An interrupt
/// (Ctrl-C) ends the load: none begins any more, and those in flight have a second. Blocks.
///
/// # Errors
/// A [`VerifyError`].
pub fn run(settings: Settings, clocks: Clocks) -> Result<Outcome, VerifyError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let address = settings.listen;
        let listener = TcpListener::bind(address).await;
        load(settings, listener.map_err(|source| VerifyError::Listen { address, source })?, clocks).await
    })
}

async fn load(settings: Settings, listener: TcpListener, clocks: Clocks) -> Result<Outcome, VerifyError> {
    let Settings { via, bounds, timeout: limit, .. } = settings;
    let (line, local) = Line::open(via).await?;

    let seed = rand::random::<u64>();
    let work = Rc::new(Work::new(clocks.instant, Board::new(limit, (seed >> 32) as u32)));
    let (calls, placed) = mpsc::channel(WAITING);
    let phones = settings.phones;
    let messages = Messages::new((local, via), phones.clone(), seed);
    let client = Client::new((settings.api, settings.protocol), &settings.key, (phones, limit), (work.clone(), calls))?;
    let client = Rc::new(client);
    let mut senders = Vec::new();
    for _ in 0..settings.connections.max(1) {
        let sender = client.connect().await.map_err(|source| match source {
            source if lacks_descriptors(&source) => VerifyError::Descriptors { source },
            source => VerifyError::Connect { url: client.api.to_string(), source },
        });
        senders.push(sender?);
    }

    let receiver = Receiver { work: work.clone(), secrets: settings.secrets, utc: clocks.utc };
    let (running, ended) = watch::channel(());
    let mut receiving = JoinSet::new();
    receiving.spawn_local(receiver.run(listener, ended));
    let timers = if via.transport == Transport::Udp { Timers::unreliable(limit) } else { Timers::reliable(limit) };
    // When all verifications have ended, none of these has anything left to do, and they end with the set.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(Carrier { work: work.clone(), line, messages, timers }.run(placed));
    let timekeeper = work.clone();
    tasks.spawn_local(async move { timekeeper.keep_time().await });
    for sender in senders {
        tasks.spawn_local(client.clone().run(sender));
    }

    follow(&work, Pacer::new(settings.pace, bounds, 0, 1), bounds).await?;
    drop(running);
    // The node sends again what it has no answer to.
    let _ = timeout(LINGER, receiving.join_next()).await;
    let (tally, last) = work.with(Board::take);
    Ok(Outcome { tally, elapsed: if last.is_zero() { work.now() } else { last }, losses: work.losses() })
}

/// Lets the load run to its end, and shows meanwhile how far it is.
async fn follow(work: &Work, pacer: Pacer, bounds: Bounds) -> Result<(), VerifyError> {
    let mut progress = Progress::on_terminal(bounds.calls.is_none().then_some(bounds.duration));
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let course = course(work, pacer);
    tokio::pin!(course);
    let ended = loop {
        tokio::select! {
            ended = &mut course => break ended,
            _ = period.tick(), if progress.is_some() => if let Some(progress) = &mut progress {
                progress.show(work.now(), work.with(|board| board.counts()));
            },
        }
    };
    if let Some(progress) = progress {
        progress.clear();
    }
    ended
}

async fn course(work: &Work, pacer: Pacer) -> Result<(), VerifyError> {
    tokio::select! {
        biased;
        why = work.refused() => return Err(why),
        ended = work.pace(pacer) => ended?,
        () = interrupted() => {
            work.stop();
            let _ = timeout(LAST, work.drained()).await;
            let now = work.now();
            work.with(|board| board.interrupt(now));
        }
    }
    Ok(())
}

/// Waits for Ctrl-C; for ever where it cannot be heard, and then it ends the process as it does without a handler.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
