//! The carrier: places the calls of created verifications, sends their INVITEs again, and acknowledges their refusals.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::board::Pair;
use super::line::Line;
use super::messages::Messages;
use super::work::Work;
use crate::load::flood::reply::Reader;
use crate::load::flood::timers::{Look, Timers};
use crate::load::slab::Key;
use crate::transport::udp::BATCH;

/// How often calls without an answer are looked for.
const SWEEP: Duration = Duration::from_millis(10);
/// Sweeps between two tries to open a connection again.
const MEND: u32 = 10;

/// One way to the node, and what goes over it.
pub(super) struct Carrier {
    pub(super) work: Rc<Work>,
    pub(super) line: Line,
    pub(super) messages: Messages,
    pub(super) timers: Timers,
}

/// An ACK that is owed.
struct Ack {
    key: Key,
    pair: Pair,
    code: u16,
    to: Vec<u8>,
}

impl Carrier {
    /// Places the calls that come, until there is nobody to give one. Then nothing is waited for any more.
    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<Key>) {
        let reader = Reader::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keys = Vec::with_capacity(BATCH);
        let mut sweeps = 0u32;
        loop {
            tokio::select! {
                () = self.line.readable() => self.receive(&reader).await,
                // Without a connection they wait.
                count = calls.recv_many(&mut keys, BATCH), if self.line.is_open() => {
                    if count == 0 {
                        return;
                    }
                    self.invite(&mut keys).await;
                }
                _ = sweep.tick() => {
                    self.sweep().await;
                    sweeps = sweeps.wrapping_add(1);
                    if sweeps.is_multiple_of(MEND) {
                        self.line.mend().await;
                    }
                }
            }
        }
    }

    async fn invite(&mut self, keys: &mut Vec<Key>) {
        let now = self.work.now();
        for key in keys.drain(..) {
            // It may have been given up while it waited.
            let Some(pair) = self.work.with(|board| board.invite(key, now)) else { continue };
            self.timers.sent(now, key);
            let messages = &self.messages;
            self.line.send(|out| messages.invite(key, pair, out)).await;
        }
        self.flush().await;
    }

    async fn receive(&mut self, reader: &Reader) {
        let mut acks = Vec::new();
        let (work, now) = (&self.work, self.work.now());
        let is_there = self.line.receive(|message| {
            let reply = reader.read(message);
            let owed = work.with(|board| {
                if let Some(reply) = reply {
                    return board.response(reply.key, reply.code, now);
                }
                board.count("unreadable response");
                None
            });
            if let (Some(pair), Some(reply)) = (owed, reply) {
                acks.push(Ack { key: reply.key, pair, code: reply.code, to: reply.to.to_vec() });
            }
        });
        if !is_there {
            self.disconnect();
        }
        let messages = &self.messages;
        for Ack { key, pair, code, to } in acks {
            self.line.send(|out| messages.ack(key, pair, (code, &to), out)).await;
        }
        self.flush().await;
    }

    async fn sweep(&mut self) {
        let now = self.work.now();
        while let Some(look) = self.timers.due(now, |key| self.work.with(|board| board.is_unanswered(key))) {
            // The end of a verification is not the call's: it counts from the beginning.
            let Look::Again(key) = look else { continue };
            let Some(pair) = self.work.with(|board| board.again(key)) else { continue };
            let messages = &self.messages;
            self.line.send(|out| messages.invite(key, pair, out)).await;
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        if !self.line.flush().await {
            self.disconnect();
        }
        self.work.lose(self.line.take_losses());
    }

    fn disconnect(&self) {
        let now = self.work.now();
        self.work.with(|board| board.disconnect(now));
    }
}
