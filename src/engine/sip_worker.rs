//! The loop of one UDP socket: a batch in, its answers out, and the answers of calls whose commit is done.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::clock;
use super::sip_answer::{Arrival, SipShared, Write};
use super::waiting::Owner;
use crate::sip::flow::{Flow, Transport};
use crate::sip::message::Scanner;
use crate::telemetry::beat::Beat;
use crate::telemetry::metrics::Metrics;
use crate::transport::udp::{BATCH, Inbox, Outgoing, UdpSocket};
use crate::verify::claims::{MAX_WAITING, Outcome};

/// How often calls that have waited too long are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// Datagrams that are answered before anything else has its turn: a millisecond or two.
const PART: usize = 256;

/// How long calls that wait are still answered when the node stops.
pub const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// One socket's loop.
pub struct SipWorker {
    shared: Arc<SipShared>,
    socket: UdpSocket,
    /// Its number among all loops.
    owner: usize,
    finished: mpsc::Receiver<(u128, Outcome)>,
    finish: mpsc::Sender<(u128, Outcome)>,
    scanner: Scanner,
    outgoing: Outgoing,
    socket_drops: IntCounter,
    batch: Histogram,
    beat: Arc<Beat>,
    /// The socket could not be read: it is left alone until the next sweep.
    ailing: bool,
}

impl SipWorker {
    /// Prepares the loop of `socket`.
    #[must_use]
    pub fn new(shared: Arc<SipShared>, socket: UdpSocket, owner: usize, metrics: &Metrics) -> Self {
        let (finish, finished) = mpsc::channel(MAX_WAITING);
        let (scanner, outgoing) = (Scanner::default(), Outgoing::new());
        let (socket_drops, batch, beat) =
            (metrics.sip_socket_drops.clone(), metrics.sip_batch.clone(), shared.beat(owner));
        Self { shared, socket, owner, finished, finish, scanner, outgoing, socket_drops, batch, beat, ailing: false }
    }

    /// Reads and answers until `stop` turns true; then no call is read any more, and those that wait get their answer.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut inbox = Inbox::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.beat.turn();
            tokio::select! {
                ready = self.socket.readable(), if !self.ailing => {
                    if ready.is_err() {
                        break;
                    }
                    self.receive(&mut inbox).await;
                }
                Some(first) = self.finished.recv() => self.finish(first).await,
                _ = sweep.tick() => self.sweep().await,
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.shared.waiting.has_any(self.owner) && Instant::now() < deadline {
            self.beat.turn();
            tokio::select! {
                Some(first) = self.finished.recv() => self.finish(first).await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn receive(&mut self, inbox: &mut Inbox) {
        if let Err(error) = inbox.receive(&self.socket) {
            tracing::warn!(%error, "a SIP socket could not be read");
            self.ailing = true;
            return;
        }
        self.socket_drops.inc_by(inbox.kernel_drops().into());
        if inbox.is_empty() {
            return;
        }
        // Runs can make thousands of one batch: each part of it has its own time, and calls whose wait is over go
        // between.
        let mut from = 0;
        while from < inbox.len() {
            let until = inbox.len().min(from + PART);
            self.answer(inbox, from..until).await;
            from = until;
            self.beat.turn();
            while from < inbox.len()
                && let Ok(first) = self.finished.try_recv()
            {
                self.finish(first).await;
            }
        }
    }

    /// Answers a part of a batch.
    async fn answer(&mut self, inbox: &Inbox, places: Range<usize>) {
        let (now, utc, instant) = (clock::boot(), clock::utc(), clock::instant());
        let port = self.socket.local_addr().port();
        for datagram in places.map(|place| inbox.datagram(place)) {
            if self.outgoing.is_full() {
                self.flush().await;
            }
            if datagram.truncated {
                self.shared.count_truncated();
                continue;
            }
            let local = SocketAddr::new(datagram.local, port);
            let flow = Flow { transport: Transport::Udp, local, remote: datagram.remote };
            let arrival = Arrival { flow, owner: Owner::Loop(self.owner), utc, now, instant };
            let outgoing = &mut self.outgoing;
            let mut lost = false;
            let answer = |to, write: Write<'_>| lost = outgoing.push(to, datagram.local, write).is_err();
            self.shared.receive(&mut self.scanner, datagram.bytes, arrival, || self.finish.clone(), answer);
            self.shared.count_unsent(lost.into());
        }
        self.flush().await;
        self.batch.observe(clock::instant().duration_since(instant).as_secs_f64());
    }

    /// Answers calls whose wait is over, as many as have gathered.
    async fn finish(&mut self, first: (u128, Outcome)) {
        let now = clock::boot();
        let (mut ended, mut left) = (first, BATCH);
        loop {
            let (ticket, outcome) = ended;
            let outgoing = &mut self.outgoing;
            let mut lost = false;
            self.shared.finish(&mut self.scanner, ticket, outcome, now, |call, to, write| {
                lost = outgoing.push(to, call.flow.local.ip(), write).is_err();
            });
            self.shared.count_unsent(lost.into());
            left -= 1;
            // Looked at only when there is room for one more: what is taken out must be answered.
            match (left > 0).then(|| self.finished.try_recv().ok()).flatten() {
                Some(next) => ended = next,
                None => break,
            }
        }
        self.flush().await;
    }

    async fn sweep(&mut self) {
        self.ailing = false;
        // Strangers' datagrams are dropped without a word; where nobody else sends any, nothing else tells of them.
        self.socket_drops.inc_by(self.socket.new_drops().into());
        let overdue = self.shared.waiting.take_overdue(self.owner, clock::boot());
        for calls in overdue.chunks(BATCH) {
            for call in calls {
                let outgoing = &mut self.outgoing;
                let mut lost = false;
                self.shared.give_up(&mut self.scanner, call, |call, to, write| {
                    lost = outgoing.push(to, call.flow.local.ip(), write).is_err();
                });
                self.shared.count_unsent(lost.into());
            }
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let flushed = self.outgoing.flush(&self.socket).await;
        self.shared.count_unsent(flushed.dropped);
    }
}
