//! Calls by the hundred thousand: INVITE, final response, ACK, as a carrier sends them, over UDP or TCP.
//!
//! Owns the command `ringproof load sip` behind its arguments: threads with a socket or connections each, the calls in
//! flight, and the counts of what became of them. Does not end what a peer answers: a 2xx is counted, acknowledged and
//! left. Invariant: each call that begins is counted once, as ended by a final response or as lost by a name. In the
//! steady state a call costs no allocation, and no system call but its share of a batch. RFC 3261 17.1.1.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::losses::Losses;
use super::pace::{Bounds, Pace, Pacer};
use super::progress::{Line, PERIOD};
use super::tally::Tally;
use super::target::Target;
use crate::sip::flow::Transport;
use crate::transport::TransportError;
use crate::transport::udp::{self, BoundSocket};

mod calls;
mod course;
mod datagrams;
pub(super) mod forms;
pub(super) mod identifiers;
pub mod numbers;
pub(super) mod reply;
mod script;
mod streams;
pub(super) mod template;
pub mod timer;
pub(super) mod timers;

pub use identifiers::Lengths;
pub use script::Plot;

use calls::LATENCY;
use course::{Course, Shared};

/// How long a first connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What to send where, and how much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The peer.
    pub via: Target,
    /// What the messages are made of.
    pub plot: Plot,
    /// When calls begin. A window has at least one call for each thread over UDP, and for each connection over TCP.
    pub pace: Pace,
    /// Where the load ends.
    pub bounds: Bounds,
    /// How long a call may take until its final response.
    pub timeout: Duration,
    /// Threads; over UDP each has a socket.
    pub threads: usize,
    /// Connections of all threads together, over TCP.
    pub connections: usize,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// The counts of all threads.
    pub tally: Tally,
    /// From the start until the last call began or ended; until now where none ended.
    pub elapsed: Duration,
    /// What this machine has lost of it.
    pub losses: Losses,
}

/// Why no load was placed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// There is no way to the peer's network.
    #[error("{via} cannot be reached: {source}")]
    NoWay {
        /// The peer asked for.
        via: Target,
        /// The system's error.
        source: io::Error,
    },
    /// The peer takes no connection.
    #[error("{via} takes no connection: {source}; is a SIP peer listening there?")]
    Connect {
        /// The peer asked for.
        via: Target,
        /// The system's error.
        source: io::Error,
    },
    /// The system gives no further file descriptor.
    #[error("no file descriptor is left for the load: {source}; raise 'ulimit -n', or take fewer --connections")]
    Descriptors {
        /// The system's error.
        source: io::Error,
    },
    /// The INVITE with all its header fields does not fit a datagram.
    #[error("an INVITE has {length} bytes with these header fields; at most {MAX_INVITE} go over UDP")]
    TooLong {
        /// Bytes of an INVITE.
        length: usize,
    },
    /// No socket.
    #[error(transparent)]
    Socket(#[from] TransportError),
    /// No thread, no event loop, no signal, or a socket that fails by itself.
    #[error("the system fails the load: {0}")]
    System(#[source] io::Error),
}

impl From<io::Error> for FloodError {
    fn from(source: io::Error) -> Self {
        if lacks_descriptors(&source) { Self::Descriptors { source } } else { Self::System(source) }
    }
}

/// Longest INVITE over UDP, with room for the longest identifiers.
const MAX_INVITE: usize = 65_000;

/// What one thread or connection has to tell.
pub(crate) struct Part {
    tally: Tally,
    last: Duration,
    losses: Losses,
}

/// Places the calls, shows how far they are where standard error is a terminal, and gives what became of them. An
/// interrupt (Ctrl-C) ends the load: no call begins any more, and those in flight have a second. Blocks. `clock` is the
/// monotonic time.
///
/// # Errors
/// A [`FloodError`].
pub fn run(settings: Settings, clock: fn() -> Instant) -> Result<Outcome, FloodError> {
    let watcher = Builder::new_current_thread().enable_all().build()?;
    let bounds = settings.bounds;
    let ways = Ways::open(&settings)?;
    let shared = Arc::new(Shared::new(settings, clock));
    let (running, ended) = mpsc::channel(1);
    let threads = ways.start(&shared, &running);
    drop(running);
    if threads.is_err() {
        shared.stop();
    }
    let line = Line::on_terminal(bounds.calls.is_none().then_some(bounds.duration));
    watcher.block_on(watch(&shared, ended, line));

    let mut outcome = Outcome { tally: Tally::new(&[LATENCY]), elapsed: Duration::ZERO, losses: Losses::default() };
    for thread in threads? {
        let parts = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        for part in parts {
            outcome.tally.add(&part.tally);
            outcome.elapsed = outcome.elapsed.max(part.last);
            outcome.losses += part.losses;
        }
    }
    if outcome.tally.ended == 0 {
        outcome.elapsed = shared.now();
    }
    Ok(outcome)
}

/// Shows how far the load is until every thread has ended, and hears the interrupt.
async fn watch(shared: &Shared, mut ended: mpsc::Receiver<()>, mut line: Option<Line>) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick would be at once, when there is nothing to show.
    period.reset();
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).ok();
    loop {
        let interrupted = async {
            match &mut interrupts {
                Some(interrupts) => interrupts.recv().await,
                // Then it ends the process as it does without a handler.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Threads say nothing; each holds the other end until it ends.
            _ = ended.recv() => break,
            _ = interrupted => shared.stop(),
            _ = period.tick() => if let Some(line) = &mut line {
                line.show(shared.now(), shared.progress.counts());
            },
        }
    }
    if let Some(line) = line {
        line.clear();
    }
}

type Parts = Result<Vec<Part>, FloodError>;

/// The open sockets or connections, before any call.
enum Ways {
    Udp(Vec<BoundSocket>),
    /// Those of each thread, with their places among all.
    Tcp(Vec<Vec<(u64, TcpStream)>>),
}

impl Ways {
    fn open(settings: &Settings) -> Result<Self, FloodError> {
        let via = settings.via;
        if via.transport == Transport::Udp {
            let local = local_address(via.address).map_err(|source| FloodError::NoWay { via, source })?;
            let length = script::Script::new(&settings.plot, local, via).length();
            if length > MAX_INVITE {
                return Err(FloodError::TooLong { length });
            }
            let mut sockets = Vec::new();
            for _ in 0..settings.threads.max(1) {
                // One of each call: several of one call would share a port, and answers would go to any of them.
                sockets.extend(udp::open(local, 1)?);
            }
            return Ok(Self::Udp(sockets));
        }
        let connections = settings.connections.max(1);
        let mut threads: Vec<_> = (0..settings.threads.clamp(1, connections)).map(|_| Vec::new()).collect();
        let count = threads.len();
        for (place, thread) in (0..connections).zip((0..count).cycle()) {
            let stream = TcpStream::connect_timeout(&via.address, CONNECT)
                .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
                .map_err(|source| match source {
                    source if lacks_descriptors(&source) => FloodError::Descriptors { source },
                    source => FloodError::Connect { via, source },
                })?;
            threads[thread].push((place as u64, stream));
        }
        Ok(Self::Tcp(threads))
    }

    fn start(self, shared: &Arc<Shared>, running: &mpsc::Sender<()>) -> io::Result<Vec<JoinHandle<Parts>>> {
        match self {
            Self::Udp(sockets) => {
                let count = sockets.len() as u64;
                let start = |(place, socket)| {
                    spawn(shared, running, move |runtime, shared| {
                        let course = course(&shared, place, count);
                        runtime.block_on(datagrams::run(socket, &shared, course)).map(|part| vec![part])
                    })
                };
                (0..count).zip(sockets).map(start).collect()
            }
            Self::Tcp(threads) => {
                let count = threads.iter().map(Vec::len).sum::<usize>() as u64;
                let start = |streams: Vec<(u64, TcpStream)>| {
                    spawn(shared, running, move |runtime, shared| {
                        let connections: Vec<_> = streams
                            .into_iter()
                            .map(|(place, stream)| (stream, course(&shared, place, count)))
                            .collect();
                        runtime.block_on(streams::run(connections, &shared))
                    })
                };
                threads.into_iter().map(start).collect()
            }
        }
    }
}

/// The share of one socket or connection.
fn course(shared: &Arc<Shared>, place: u64, count: u64) -> Course {
    let settings = &shared.settings;
    Course::new(shared.clone(), Pacer::new(settings.pace, settings.bounds, place, count))
}

/// A thread with an event loop of its own.
fn spawn(
    shared: &Arc<Shared>,
    running: &mpsc::Sender<()>,
    work: impl FnOnce(Runtime, Arc<Shared>) -> Parts + Send + 'static,
) -> io::Result<JoinHandle<Parts>> {
    let (shared, running) = (shared.clone(), running.clone());
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let parts = runtime.map_err(FloodError::from).and_then(|runtime| work(runtime, shared.clone()));
        if parts.is_err() {
            // The others need not go on: there will be no report.
            shared.stop();
        }
        drop(running);
        parts
    })
}

/// Whether the process or the machine has no file descriptor left: nobody else is to blame.
pub(super) fn lacks_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| [libc::EMFILE, libc::ENFILE].contains(&code))
}

/// The address, without port, that packets to `via` leave from.
pub(super) fn local_address(via: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = match via {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Connecting a datagram socket sends nothing.
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(via)?;
    let mut local = socket.local_addr()?;
    local.set_port(0);
    Ok(local)
}

#[cfg(test)]
mod tests;
