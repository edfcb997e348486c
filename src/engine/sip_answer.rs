//! One SIP message in, at most one answer out: where the trunk's settings meet the UAS core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter};
use tokio::sync::mpsc;

use super::peers::Peers;
use super::routes::{Routes, TrunkFace};
use super::waiting::{Owner, WaitingCall, WaitingCalls};
use super::{clock, confirm};
use crate::call::event::{CallKey, TrunkId};
use crate::call::evidence::Proof;
use crate::call::judge::{Invite, judge};
use crate::call::trunk::Trunk;
use crate::matcher::boot_time::BootTime;
use crate::sip::flow::{Flow, Transport};
use crate::sip::message::{HeaderName, Method, Request, ScanError, Scanner, StartLine, Uri, Via};
use crate::sip::transaction::cookie::Tag;
use crate::sip::transaction::key::{HashKey, Hashes, TransactionKey};
use crate::sip::uas::dispatch::{Dispatch, Dropped, dispatch};
use crate::sip::uas::response::{Head, Status, ToTag};
use crate::telemetry::beat::Beat;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::verify::claims::{Notify, Outcome};
use crate::verify::recent_calls::RecentCalls;
use crate::verify::{Held, Judged, Taken, Verify};

/// What all SIP loops share.
pub struct SipShared {
    routes: ArcSwap<Routes>,
    verify: Verify,
    recent: Arc<RecentCalls>,
    /// Calls that wait for their commit.
    pub waiting: WaitingCalls,
    key: HashKey,
    health: Arc<Health>,
    dropped: DroppedCounters,
    invite_to_reply: Histogram,
}

struct DroppedCounters {
    unknown_source: IntCounter,
    keep_alive: IntCounter,
    not_sip: IntCounter,
    truncated: IntCounter,
    no_via: IntCounter,
    response: IntCounter,
    unsent: IntCounter,
}

/// A message's circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The way it came.
    pub flow: Flow,
    /// Who read it.
    pub owner: Owner,
    /// When, UTC.
    pub utc: SystemTime,
    /// When, since boot.
    pub now: BootTime,
    /// When, for measuring.
    pub instant: Instant,
}

/// A call that this node places at itself, over the built-in trunk.
pub struct TestCall<'t> {
    /// The built-in trunk as this call sees it, where that differs from how it is configured.
    pub trunk: Option<&'t Trunk>,
    /// Place of the application that asked for it.
    pub only: u16,
    /// What became of it. Stays `None` where the message is refused by its form alone.
    pub judged: Option<Judged>,
}

/// Where a message comes from.
struct Origin<'o, 't, 'f> {
    id: TrunkId,
    face: &'f TrunkFace,
    test: Option<&'o mut TestCall<'t>>,
}

/// Appends the bytes of an answer to a send buffer.
pub type Write<'w> = &'w mut dyn FnMut(&mut Vec<u8>);

impl SipShared {
    /// Puts together what the loops need.
    pub fn new(
        trunks: Vec<Trunk>,
        peers: Peers,
        verify: Verify,
        recent: Arc<RecentCalls>,
        key: HashKey,
        health: Arc<Health>,
        metrics: &Metrics,
    ) -> Self {
        let dropped = |reason| metrics.sip_dropped.with_label_values(&[reason]);
        Self {
            routes: ArcSwap::from_pointee(Routes::new(trunks, peers, metrics)),
            verify,
            recent,
            waiting: WaitingCalls::default(),
            key,
            health,
            invite_to_reply: metrics.invite_to_reply.clone(),
            dropped: DroppedCounters {
                unknown_source: dropped("unknown_source"),
                keep_alive: dropped("keep_alive"),
                not_sip: dropped("not_sip"),
                truncated: dropped("truncated"),
                no_via: dropped("no_via"),
                response: dropped("response"),
                unsent: dropped("unsent"),
            },
        }
    }

    /// Puts other trunks and peers in force, from the next message on.
    pub fn replace_routes(&self, trunks: Vec<Trunk>, peers: Peers, metrics: &Metrics) {
        self.routes.store(Arc::new(Routes::new(trunks, peers, metrics)));
    }

    /// The beat of the loop with this number.
    pub fn beat(&self, owner: usize) -> Arc<Beat> {
        self.health.beats.add(&format!("SIP loop {owner}"), true)
    }

    /// Counts answers that could not be sent.
    pub fn count_unsent(&self, count: usize) {
        self.dropped.unsent.inc_by(count as u64);
    }

    /// Counts a datagram that did not come whole, which leaves nothing to judge.
    pub fn count_truncated(&self) {
        self.dropped.truncated.inc();
    }

    /// Whether a trunk has this address. A stranger is counted.
    pub fn knows(&self, remote: SocketAddr) -> bool {
        let known = self.routes.load().peers.trunk(remote.ip()).is_some();
        if !known {
            self.dropped.unknown_source.inc();
        }
        known
    }

    /// Judges one message and gives its answer and where it goes, if there is one now. Gives the ticket of a call
    /// that is kept from now on until its outcome is told to `finished` or it is given up.
    pub fn receive(
        &self,
        scanner: &mut Scanner,
        bytes: &[u8],
        arrival: Arrival,
        finished: impl FnOnce() -> mpsc::Sender<(u128, Outcome)>,
        answer: impl FnOnce(SocketAddr, Write<'_>),
    ) -> Option<u128> {
        let routes = self.routes.load();
        let Some(id) = routes.peers.trunk(arrival.flow.remote.ip()) else {
            self.dropped.unknown_source.inc();
            return None;
        };
        let face = &routes.trunks[usize::from(id.0)];
        if is_ack(bytes) && face.trunk.proof(arrival.flow.transport != Transport::Udp) != Proof::Ack {
            // Every refusal brings one, and none says anything.
            face.count_ack(arrival.flow.transport);
            return None;
        }
        self.answer(Origin { id, face, test: None }, scanner, bytes, arrival, finished, answer)
    }

    /// As [`SipShared::receive`], for a call of this node's own. Without the built-in trunk there is no answer.
    pub fn receive_test(
        &self,
        test: &mut TestCall<'_>,
        scanner: &mut Scanner,
        bytes: &[u8],
        arrival: Arrival,
        finished: impl FnOnce() -> mpsc::Sender<(u128, Outcome)>,
        answer: impl FnOnce(SocketAddr, Write<'_>),
    ) -> Option<u128> {
        let routes = self.routes.load();
        let place = routes.trunks.iter().position(|face| face.trunk.name == Trunk::SANDBOX);
        let id = TrunkId(u16::try_from(place?).ok()?);
        let face = &routes.trunks[usize::from(id.0)];
        self.answer(Origin { id, face, test: Some(test) }, scanner, bytes, arrival, finished, answer)
    }

    fn answer(
        &self,
        origin: Origin<'_, '_, '_>,
        scanner: &mut Scanner,
        bytes: &[u8],
        arrival: Arrival,
        finished: impl FnOnce() -> mpsc::Sender<(u128, Outcome)>,
        answer: impl FnOnce(SocketAddr, Write<'_>),
    ) -> Option<u128> {
        let drop = |counter: &IntCounter| {
            counter.inc();
            None
        };
        let face = origin.face;
        let message = match scanner.scan(bytes) {
            Ok(message) => message,
            Err(ScanError::Empty) => return drop(&self.dropped.keep_alive),
            Err(ScanError::NotSip) => return drop(&self.dropped.not_sip),
        };
        face.count(&message, arrival.flow.transport);
        let (retry_after, sealed);
        let (via, head) = match dispatch(message) {
            Dispatch::Drop(Dropped::Ack) => return None,
            Dispatch::Ack(ack) => {
                self.confirm(&ack, &origin, arrival, finished);
                return None;
            }
            Dispatch::Drop(Dropped::NoVia) => return drop(&self.dropped.no_via),
            Dispatch::Drop(Dropped::Response) => return drop(&self.dropped.response),
            Dispatch::Respond(via, status) => (via, status.into()),
            Dispatch::Options(request) => {
                // The peer of a node that drains is to send its calls elsewhere.
                let wait = self.health.retry_after(arrival.now.since(BootTime::default()));
                retry_after = wait.map(|wait| format!("Retry-After: {}\r\n", wait.as_secs()));
                let refusal = retry_after.as_deref().map(|fields| Head { fields, ..Status::ServiceUnavailable.into() });
                (request.via, refusal.unwrap_or(Status::Ok.into()))
            }
            Dispatch::Cancel(request) => (request.via, self.cancel(&request, arrival.flow).into()),
            Dispatch::Invite(request, uri) => {
                let call = Call { request: &request, uri, hashes: self.key.hashes(&request), bytes };
                let head = match self.invite(call, origin, arrival, finished) {
                    Reply::Now(head) => Head { tag: Some(ToTag::Hash(call.hashes.tag)), ..head },
                    Reply::Confirm(tag) => {
                        sealed = tag;
                        Head { tag: Some(ToTag::Text(&sealed)), ..face.refusal() }
                    }
                    Reply::Later(ticket) => return Some(ticket),
                    Reply::Known => return None,
                };
                (request.via, head)
            }
        };
        face.answer(&message, &via, arrival.flow, head, &self.key, answer);
        None
    }

    /// Answers a request that cannot be cut out of its stream, as far as its head can be read.
    pub fn refuse(
        &self,
        scanner: &mut Scanner,
        head: &[u8],
        flow: Flow,
        status: Status,
        answer: impl FnOnce(SocketAddr, Write<'_>),
    ) {
        let routes = self.routes.load();
        let Some(id) = routes.peers.trunk(flow.remote.ip()) else { return };
        let face = &routes.trunks[usize::from(id.0)];
        let Ok(message) = scanner.scan(head) else { return };
        face.count(&message, flow.transport);
        let StartLine::Request { method, .. } = message.start_line() else { return };
        let Some(via) = message.values(HeaderName::Via).next().and_then(Via::parse) else { return };
        if method != Method::Ack {
            face.answer(&message, &via, flow, status.into(), &self.key, answer);
        }
    }

    /// Answers a call whose wait is over. A call that was answered before, for its wait was too long, is passed over.
    pub fn finish(
        &self,
        scanner: &mut Scanner,
        ticket: u128,
        outcome: Outcome,
        now: BootTime,
        answer: impl FnOnce(&WaitingCall, SocketAddr, Write<'_>),
    ) {
        let key = TransactionKey(ticket);
        if outcome == Outcome::Durable
            && let Some(answered) = self.waiting.answered(key)
        {
            // Before it leaves the table: a CANCEL in between finds it in one or the other.
            self.recent.note_transaction(answered, now);
        }
        let Some(call) = self.waiting.take(key) else { return };
        let routes = self.routes.load();
        let face = &routes.trunks[usize::from(call.trunk.0)];
        let head = match outcome {
            Outcome::Durable => {
                if call.canceled {
                    Status::RequestTerminated.into()
                } else {
                    face.refusal()
                }
            }
            Outcome::Failed => Status::ServiceUnavailable.into(),
        };
        self.reply(scanner, &call, face, head, answer);
    }

    /// Answers 503 to a call that has waited too long.
    pub fn give_up(
        &self,
        scanner: &mut Scanner,
        call: &WaitingCall,
        answer: impl FnOnce(&WaitingCall, SocketAddr, Write<'_>),
    ) {
        let routes = self.routes.load();
        let face = &routes.trunks[usize::from(call.trunk.0)];
        self.reply(scanner, call, face, Status::ServiceUnavailable.into(), answer);
    }

    fn reply(
        &self,
        scanner: &mut Scanner,
        call: &WaitingCall,
        face: &TrunkFace,
        head: Head<'_>,
        answer: impl FnOnce(&WaitingCall, SocketAddr, Write<'_>),
    ) {
        self.invite_to_reply.observe(clock::instant().duration_since(call.received).as_secs_f64());
        // The message was readable when the call was kept.
        let Ok(message) = scanner.scan(&call.request) else { return };
        let Some(via) = message.values(HeaderName::Via).next().and_then(Via::parse) else { return };
        face.answer(&message, &via, call.flow, head, &self.key, |to, write: Write<'_>| {
            answer(call, to, write);
        });
    }

    fn invite<'f>(
        &self,
        call: Call<'_>,
        origin: Origin<'_, '_, 'f>,
        arrival: Arrival,
        finished: impl FnOnce() -> mpsc::Sender<(u128, Outcome)>,
    ) -> Reply<'f> {
        let Call { request, uri, hashes, bytes } = call;
        let Origin { id, face, test } = origin;
        let trunk = test.as_ref().and_then(|test| test.trunk).unwrap_or(&face.trunk);
        let (transaction, answered) = self.transaction(hashes.transaction, arrival.flow);
        let peer = arrival.flow.remote.ip();
        if face.rates.any() || trunk.limits.concurrent > 0 || trunk.limits.peer_concurrent > 0 {
            // What was answered already is answered again, whatever the peer sends meanwhile.
            let known = self.recent.has_transaction(answered) || self.waiting.has(transaction);
            let admitted = known || face.rates.admit(peer) && !self.waiting.is_at_cap(id, peer, &trunk.limits);
            if !admitted {
                face.limited.inc();
                return Reply::Now(Status::ServiceUnavailable.into());
            }
        }
        let connected = arrival.flow.transport != Transport::Udp;
        let invite = Invite::of((request, uri), trunk.proof(connected), CallKey(hashes.call), arrival.utc);
        self.recent.prefetch(CallKey(hashes.call), answered);
        let own = self.verify.own_numbers();
        let mut event = judge(&invite, id, trunk, |number| own.has(number));
        drop(own);
        event.only = test.as_ref().map(|test| test.only);
        if event.evidence.proof == Proof::Ack && event.only.is_none() {
            // Nothing is believed of a datagram until its refusal is known to have arrived where it seems to come from.
            self.recent.note_transaction(answered, arrival.now);
            return Reply::Confirm(confirm::tag(&self.key, request, &event, arrival.now));
        }
        let notify = || Notify { ticket: transaction.0, to: finished() };
        let mut kept = false;
        let hold = || {
            let held = self.waiting.hold(transaction, || WaitingCall {
                request: bytes.into(),
                flow: arrival.flow,
                trunk: id,
                canceled: false,
                since: arrival.now,
                received: arrival.instant,
                owner: arrival.owner,
                answered,
                capped: trunk.limits.concurrent > 0 || trunk.limits.peer_concurrent > 0,
            });
            kept = held == Held::Kept;
            held
        };
        let judged = self.verify.take_call(&event, notify, hold);
        if let Some(test) = test {
            test.judged = Some(judged);
        }
        match judged.taken {
            Taken::Refuse => {
                self.recent.note_transaction(answered, arrival.now);
                Reply::Now(face.refusal())
            }
            Taken::Wait if kept => Reply::Later(transaction.0),
            Taken::Wait => Reply::Known,
            Taken::Unavailable => Reply::Now(Status::ServiceUnavailable.into()),
        }
    }

    /// The ACK to a refusal: on a trunk with `confirm = "ack"` it is what makes the call count.
    fn confirm(
        &self,
        ack: &Request<'_>,
        origin: &Origin<'_, '_, '_>,
        arrival: Arrival,
        finished: impl FnOnce() -> mpsc::Sender<(u128, Outcome)>,
    ) {
        if origin.face.trunk.proof(arrival.flow.transport != Transport::Udp) != Proof::Ack {
            return;
        }
        let key = CallKey(self.key.call(ack));
        let Some(event) = confirm::call(&self.key, ack, origin.id, key, arrival.now, arrival.utc) else { return };
        // Nobody waits for an answer any more, so there is nothing to keep.
        let notify = || Notify { ticket: 0, to: finished() };
        self.verify.take_call(&event, notify, || Held::Already);
    }

    /// The server transaction of a request, and the name under which its answer is remembered. One that comes over
    /// another transport or connection waits by itself, for its peer waits for an answer there; a CANCEL of one that was
    /// answered may come on any.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a hash is a hash")]
    fn transaction(&self, key: TransactionKey, flow: Flow) -> (TransactionKey, u64) {
        let way = match flow.transport {
            Transport::Udp => 0,
            Transport::Tcp | Transport::Tls => self.key.way(flow.remote),
        };
        (TransactionKey(key.0 ^ way), key.0 as u64)
    }

    /// A CANCEL is answered at once, also while its INVITE still waits (RFC 3261 9.2).
    fn cancel(&self, request: &Request<'_>, flow: Flow) -> Status {
        let (transaction, answered) = self.transaction(self.key.transaction(request), flow);
        if self.waiting.cancel(transaction) || self.recent.has_transaction(answered) {
            Status::Ok
        } else {
            Status::CallDoesNotExist
        }
    }
}

/// Whether a message is an ACK by its first line.
fn is_ack(bytes: &[u8]) -> bool {
    bytes.starts_with(b"ACK ")
        && memchr::memchr(b'\n', bytes)
            .is_some_and(|end| bytes[..end].strip_suffix(b"\r").is_some_and(|line| line.ends_with(b" SIP/2.0")))
}

/// A call as it came.
#[derive(Clone, Copy)]
struct Call<'c> {
    request: &'c Request<'c>,
    /// Its Request-URI.
    uri: Uri<'c>,
    hashes: Hashes,
    bytes: &'c [u8],
}

/// What an INVITE gets.
enum Reply<'f> {
    /// This final response now.
    Now(Head<'f>),
    /// One when its outcome is told: it is kept under this ticket until then.
    Later(u128),
    /// The refusal now, with a tag that its ACK brings back.
    Confirm(Tag),
    /// One when that of its transaction is told, which is kept already.
    Known,
}
