//! One endpoint's lane: a task that tries its deliveries, so many at a time, and says what became of each.
//!
//! Owns the queue of one endpoint and its attempts in flight. Reads and writes no store: rows and results pass through
//! channels (`worker` has the other ends). Invariant: every delivery taken in is settled, or is left as it was in the
//! store when the lane ends. A disabled endpoint is sent nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use ulid::Ulid;

use super::Clock;
use super::attempt::{AttemptError, Outcome, Poster};
use super::circuit::Circuit;
use super::pace::{self, Pace};
use super::queue::Queue;
use crate::outbox::batch::{self, Message};
use crate::outbox::delivery::{DeliveryId, Due, EndpointId};
use crate::outbox::event::EventType;
use crate::outbox::notice::LastAttempt;
use crate::outbox::schedule;
use crate::store::{DisabledEndpoints, Erasures, Tried};
use crate::telemetry::metrics::Metrics;

/// Attempts in flight to one endpoint.
pub(super) const IN_FLIGHT: usize = 64;

/// Requests in flight to an endpoint that takes several events in one. While they are, further events gather.
const BATCHES_IN_FLIGHT: usize = 4;

/// New deliveries that are taken over at once.
const HANDFUL: usize = 64;

/// How often the store is asked for rows that are due.
const POLL: Duration = Duration::from_secs(1);

/// Rows are asked for when no more than this many wait.
const LOW_WATER: usize = IN_FLIGHT;

/// Rows asked for beyond those that are known, which the store still names.
const BATCH: usize = 512;

/// Polls after which a stored result is forgotten, once more at the latest.
const FORGET: u32 = 5;

/// Decides what follows `outcome`. `jitter` is a random number in 0..1.
fn settle(due: &Due, outcome: &Outcome, now: SystemTime, jitter: f64) -> Tried {
    let attempts = due.attempts.saturating_add(1);
    let (status, error, next_at) = match outcome {
        Outcome::Delivered(status) => (Some(*status), None, None),
        Outcome::Failed { error, retry_after } => {
            let planned = attempts.saturating_sub(due.replayed_after);
            let age = now.duration_since(due.planned_from).unwrap_or_default();
            let offset = schedule::next_attempt(planned, age, jitter, *retry_after);
            (error.status(), Some(error.to_string()), offset.map(|offset| due.planned_from + offset))
        }
    };
    let last = LastAttempt { at: now, status, error };
    Tried { id: due.id, attempts, replayed_after: due.replayed_after, last, next_at }
}

/// The attempts' counters of one application.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    delivered: IntCounter,
    failed: IntCounter,
    refused_address: IntCounter,
    exhausted: IntCounter,
    invite_to_webhook: Histogram,
    probed: IntGauge,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics, application: &str) -> Self {
        let child = |result| metrics.webhook_attempts.with_label_values(&[application, result]);
        Self {
            delivered: child("delivered"),
            failed: child("failed"),
            refused_address: child("refused_address"),
            exhausted: child("exhausted"),
            invite_to_webhook: metrics.invite_to_webhook.clone(),
            probed: metrics.webhook_endpoints_probed.clone(),
        }
    }

    /// Every attempt counts once: as the last one where it was. How long a call's way to the receiver took is told by
    /// first attempts alone, for the later ones wait by plan.
    fn count(&self, due: &Due, outcome: &Outcome, tried: &Tried) {
        match outcome {
            Outcome::Delivered(_) => {
                if due.kind == EventType::Verified && due.attempts == 0 {
                    let time = tried.last.at.duration_since(due.planned_from).unwrap_or_default();
                    self.invite_to_webhook.observe(time.as_secs_f64());
                }
                &self.delivered
            }
            Outcome::Failed { .. } if tried.next_at.is_none() => &self.exhausted,
            Outcome::Failed { error, .. } if error.is_refused_address() => &self.refused_address,
            Outcome::Failed { .. } => &self.failed,
        }
        .inc();
    }
}

/// The task of one endpoint.
pub(super) struct Lane {
    pub(super) application: String,
    pub(super) endpoint: EndpointId,
    /// Who makes the attempts; another one when the endpoint's settings change.
    pub(super) poster: watch::Receiver<Arc<Poster>>,
    /// The endpoints that are sent nothing.
    pub(super) disabled: watch::Receiver<DisabledEndpoints>,
    /// Tells that what the lane holds may not be as the store has it: a person's data was erased.
    pub(super) clear: watch::Receiver<Erasures>,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    /// New deliveries, right after their commit.
    pub(super) fresh: mpsc::Receiver<Due>,
    /// Asks for so many rows that are due; one question at a time.
    pub(super) polls: mpsc::Sender<u32>,
    /// The answers.
    pub(super) polled: mpsc::Receiver<Vec<Due>>,
    /// What became of each try.
    pub(super) settled: mpsc::Sender<Tried>,
    /// The results that the store has answered for, each with the attempts made.
    pub(super) stored: mpsc::Receiver<(DeliveryId, u32)>,
}

impl Lane {
    /// Works until `stop` gives a time, then lets the attempts in flight end within it. What still waits then, and what
    /// is cut off, is due in the store.
    pub(super) async fn run(self, mut stop: watch::Receiver<Option<Duration>>) {
        let mut work = Work {
            circuit: Circuit::new(self.counters.probed.clone()),
            lane: self,
            queue: Queue::new(pace::LEAST),
            pace: Pace::default(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            paused: false,
            gone: None,
            clears: 0,
        };
        work.clear();
        work.look_if_paused();
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ticks, mut asked) = (0u32, None);
        let (mut more, mut outdated) = (false, false);
        let mut arrived = Vec::with_capacity(HANDFUL);
        let grace = loop {
            // What is held may be of somebody whose data was erased.
            if !work.lane.clear.has_changed().unwrap_or(false) {
                work.start();
            }
            if more && asked.is_none() && work.queue.len() <= LOW_WATER {
                more = false;
                asked = work.ask();
            }
            tokio::select! {
                // The rare ones first: under load the others are always ready.
                biased;
                grace = ending(&mut stop) => break grace,
                Ok(()) = work.lane.disabled.changed() => {
                    work.look_if_paused();
                    more = !work.paused;
                }
                Ok(()) = work.lane.clear.changed() => {
                    if work.clear() {
                        // Rows that are being read may be as they were before.
                        outdated = asked.is_some();
                        more = true;
                    }
                }
                _ = tick.tick() => {
                    work.circuit.turn();
                    work.turn_pace();
                    ticks += 1;
                    // Rows that a slow poll brings may be older than the news that their results are stored.
                    if ticks >= FORGET && asked.is_none() {
                        ticks = 0;
                        work.queue.forget();
                    }
                    if asked.is_none() && work.queue.len() <= LOW_WATER {
                        asked = work.ask();
                    }
                }
                Some((id, made)) = work.lane.stored.recv() => work.stored(id, made),
                Some(rows) = work.lane.polled.recv() => {
                    let full = asked.take().is_some_and(|limit| rows.len() >= limit as usize);
                    // A full answer with nothing new is the store being behind: the next tick is soon enough.
                    more = outdated || work.admit(rows) > 0 && full;
                    outdated = false;
                }
                Some(ended) = work.attempts.join_next_with_id() => work.end(ended).await,
                1.. = work.lane.fresh.recv_many(&mut arrived, HANDFUL), if work.paused || work.queue.has_room() => {
                    for due in arrived.drain(..) {
                        // What finds no room is in the store.
                        if !work.paused {
                            work.queue.admit_fresh(due);
                        }
                    }
                }
            }
        };
        work.wind_up(grace).await;
    }
}

fn most_in_flight(poster: &Poster) -> usize {
    if poster.batch() > 1 { BATCHES_IN_FLIGHT } else { IN_FLIGHT }
}

/// Waits until the lane has to end; gives the time that it has for it.
async fn ending(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        // Nobody is left to say so.
        Err(_) => Duration::ZERO,
    }
}

/// A lane at work.
struct Work {
    lane: Lane,
    queue: Queue,
    pace: Pace,
    circuit: Circuit,
    attempts: JoinSet<Outcome>,
    /// With how often the lane had been cleared when they were sent.
    in_flight: HashMap<Id, (u64, Vec<Due>)>,
    /// How often it has been.
    clears: u64,
    /// The endpoint is disabled: nothing is tried, and what waits is left to the store.
    paused: bool,
    /// The try that the receiver answered with 410, until the store has disabled the endpoint for it.
    gone: Option<DeliveryId>,
}

impl Work {
    fn start(&mut self) {
        let poster = Arc::clone(&self.lane.poster.borrow());
        while !self.paused
            && self.gone.is_none()
            && self.in_flight.len() < most_in_flight(&poster)
            && self.circuit.allows(self.in_flight.len())
        {
            // A probe costs no more than one event a try.
            let together = if self.circuit.is_open() { 1 } else { poster.batch() };
            let dues = self.queue.take(together, batch::BYTES);
            let [first, ..] = &*dues else { break };
            self.circuit.began();
            let (poster, now) = (Arc::clone(&poster), (self.lane.clock)());
            let task = if poster.batch() > 1 {
                let Message { id, body } =
                    batch::message(Ulid::generate(), dues.iter().map(|due| (due.event, &*due.body)), now);
                self.attempts.spawn(async move { poster.post(&id, &body, now).await })
            } else {
                let (event, body) = (first.event, Arc::clone(&first.body));
                self.attempts.spawn(async move { poster.post(&event.to_string(), &body, now).await })
            };
            self.in_flight.insert(task.id(), (self.clears, dues));
        }
    }

    /// Asks for rows; gives how many at most.
    fn ask(&self) -> Option<u32> {
        if self.paused || self.queue.is_held() {
            return None;
        }
        let limit = u32::try_from(self.queue.tracked() + BATCH).unwrap_or(u32::MAX);
        self.lane.polls.try_send(limit).is_ok().then_some(limit)
    }

    /// Takes rows in; gives how many are new.
    fn admit(&mut self, rows: Vec<Due>) -> usize {
        if self.paused {
            return 0;
        }
        rows.into_iter().map(|row| self.queue.admit(row)).filter(|admitted| *admitted).count()
    }

    /// Lets go of what is held where something of the application was erased. Whether it was.
    fn clear(&mut self) -> bool {
        let erasures = self.lane.clear.borrow_and_update().get(&self.lane.application).copied().unwrap_or_default();
        if erasures == self.clears {
            return false;
        }
        self.clears = erasures;
        let mut held = self.queue.len();
        while self.lane.fresh.try_recv().is_ok() {
            held += 1;
        }
        self.queue.clear();
        // It was not missed, so it is not to be held back now.
        self.queue.allow(self.queue.allowance().saturating_add(held));
        true
    }

    fn turn_pace(&mut self) {
        if self.circuit.is_open() || self.paused {
            self.pace.begin_anew();
        }
        self.queue.allow(self.pace.turn(self.queue.allowance()));
    }

    fn look_if_paused(&mut self) {
        self.paused = self.lane.disabled.borrow_and_update().contains(&self.lane.endpoint);
        if self.paused {
            self.queue.clear();
        }
    }

    fn stored(&mut self, id: DeliveryId, made: u32) {
        self.queue.stored(id, made);
        if self.gone == Some(id) {
            self.gone = None;
            self.look_if_paused();
        }
    }

    async fn end(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), AttemptError::Aborted.into()),
        };
        let Some((clears, dues)) = self.in_flight.remove(&task) else { return };
        match &outcome {
            Outcome::Delivered(_) => {
                self.circuit.success();
                self.pace.success(dues.len());
            }
            Outcome::Failed { error, .. } if error.is_of_the_event() => {
                self.circuit.success();
                if dues.len() > 1 {
                    // Which of them it was is not said.
                    tracing::debug!(application = self.lane.application, %error, "a batch is refused and sent one by one");
                    self.queue.part(dues);
                    if self.paused || clears != self.clears {
                        self.queue.clear();
                    }
                    return;
                }
            }
            Outcome::Failed { error, .. } => {
                self.pace.failure(dues.len());
                if self.circuit.failure(most_in_flight(&self.lane.poster.borrow())) {
                    let (application, endpoint) = (&self.lane.application, self.lane.endpoint.public());
                    tracing::info!(application, endpoint, %error, "webhook endpoint fails, it is only probed now");
                }
            }
        }
        for due in dues {
            self.settle(&due, &outcome).await;
        }
    }

    /// Says what became of one event's try.
    async fn settle(&mut self, due: &Due, outcome: &Outcome) {
        let tried = settle(due, outcome, (self.lane.clock)(), rand::random());
        self.lane.counters.count(due, outcome, &tried);
        if let Outcome::Failed { error, .. } = outcome {
            let (application, attempts) = (&self.lane.application, tried.attempts);
            if tried.next_at.is_some() {
                tracing::debug!(application, event = %due.event, attempts, %error, "webhook attempt failed");
            } else {
                tracing::warn!(application, event = %due.event, attempts, %error, "webhook delivery given up");
            }
            if error.is_gone() {
                self.gone = Some(due.id);
            }
        }
        self.queue.settle(tried.id, tried.attempts);
        // Nobody listens only when the worker itself is gone; the row is due again after the next start.
        let _ = self.lane.settled.send(tried).await;
    }

    async fn wind_up(&mut self, grace: Duration) {
        let ending = async {
            while let Some(ended) = self.attempts.join_next_with_id().await {
                self.end(ended).await;
            }
        };
        if timeout(grace, ending).await.is_err() {
            self.attempts.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests;
