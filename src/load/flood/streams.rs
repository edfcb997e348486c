//! The loops of TCP connections: what came is cut into responses; ACKs and new INVITEs go out in one write.
//!
//! Nothing is sent again: TCP does that. A connection that ends takes its calls with it, and is opened anew.

use std::io;
use std::net::TcpStream as StdStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::course::{Course, Shared, TICK};
use super::script::Script;
use super::timer::Timer;
use super::{FloodError, Part};
use crate::load::inflow::{Inflow, READ};
use crate::sip::framing::FrameError;

/// Bytes that wait to be written while new calls begin.
const WRITE: usize = 65_536;
/// First and longest pause before a connection is opened anew.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a peer may take no connection until its share of the load ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Places the calls of each connection until they are over.
pub(super) async fn run(connections: Vec<(StdStream, Course)>, shared: &Arc<Shared>) -> Result<Vec<Part>, FloodError> {
    let local = LocalSet::new();
    let mut running = JoinSet::new();
    for (stream, course) in connections {
        let stream = TcpStream::from_std(stream)?;
        running.spawn_local_on(converse(stream, shared.clone(), course), &local);
    }
    local
        .run_until(async {
            let mut parts = Vec::new();
            while let Some(ended) = running.join_next().await {
                parts.push(ended.map_err(io::Error::other)??);
            }
            Ok(parts)
        })
        .await
}

/// Why a connection is of no use any more.
enum Gone {
    /// The peer has closed it, or sends what is no SIP.
    Peer,
    /// This machine fails.
    System(io::Error),
}

impl From<FrameError> for Gone {
    fn from(_: FrameError) -> Self {
        Self::Peer
    }
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>, mut course: Course) -> Result<Part, FloodError> {
    let mut timer = Timer::new()?;
    let mut pause = PAUSES.0;
    loop {
        let ended = course.calls.counts().ended;
        match exchange(&stream, &shared, &mut course, &mut timer).await {
            Ok(()) => break,
            Err(Gone::System(error)) => return Err(error.into()),
            Err(Gone::Peer) => course.calls.lose_all("connection", course.now()),
        }
        if course.calls.counts().ended > ended {
            pause = PAUSES.0;
        }
        let Some(opened) = reopen(&shared, &mut course, pause).await else { break };
        stream = opened;
        pause = (pause * 2).min(PAUSES.1);
    }
    Ok(course.finish())
}

/// Opens the connection anew; `None` once the load is over or the peer is gone for good.
async fn reopen(shared: &Shared, course: &mut Course, mut pause: Duration) -> Option<TcpStream> {
    let since = course.now();
    loop {
        let wait = pause;
        let mut attempt = pin!(async {
            sleep(wait).await;
            TcpStream::connect(shared.settings.via.address).await
        });
        let opened = loop {
            let now = course.now();
            course.calls.refuse_due("connection", now);
            if now >= since + PATIENCE {
                course.calls.stop();
            }
            if course.is_over(now) {
                return None;
            }
            if let Ok(opened) = timeout(TICK, attempt.as_mut()).await {
                break opened;
            }
        };
        if let Ok(stream) = opened {
            return Some(stream);
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Places calls on one connection until they are over or it ends.
async fn exchange(stream: &TcpStream, shared: &Shared, course: &mut Course, timer: &mut Timer) -> Result<(), Gone> {
    // Messages are written whole; to wait for more of them would only delay them.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().map_err(|_| Gone::Peer)?;
    let script = Script::new(&shared.settings.plot, local, shared.settings.via);
    let (mut inflow, mut outgoing) = (Inflow::default(), Vec::new());
    loop {
        let read = inflow.read(stream).ok_or(Gone::Peer)?;
        let now = course.now();
        let calls = &mut course.calls;
        inflow.cut(|message| calls.receive(&script, message, now, &mut outgoing))?;
        // Also where the peer reads nothing, so that its calls come to their end.
        while calls.expire(&script, now, &mut outgoing) {}
        let mut more = true;
        while more && outgoing.len() < WRITE {
            more = calls.next(&script, now, &mut outgoing);
        }
        let stuck = !write(stream, &mut outgoing)?;
        if course.is_over(now) {
            return Ok(());
        }
        if !stuck && (more || read >= READ) {
            tokio::task::yield_now().await;
            continue;
        }
        // Calls that are due and find no room would have the timer end at once.
        let wake = if more { now + TICK } else { course.wake(now) };
        timer.arm(now, wake).map_err(Gone::System)?;
        let interest = if stuck { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        tokio::select! {
            biased;
            ready = stream.ready(interest) => drop(ready.map_err(Gone::System)?),
            expired = timer.expired() => expired.map_err(Gone::System)?,
        }
    }
}

/// Writes what there is room for; whether that was all.
fn write(stream: &TcpStream, outgoing: &mut Vec<u8>) -> Result<bool, Gone> {
    let mut written = 0;
    while written < outgoing.len() {
        match stream.try_write(&outgoing[written..]) {
            Ok(0) => return Err(Gone::Peer),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Err(Gone::Peer),
        }
    }
    outgoing.drain(..written);
    Ok(outgoing.is_empty())
}
