//! The trunks in force as the SIP side sees them: who may send calls, what each trunk answers, and what is counted.

use std::net::SocketAddr;

use prometheus::IntCounter;

use super::caps::Rates;
use super::peers::Peers;
use super::sip_answer::Write;
use crate::call::trunk::{Path, Trunk};
use crate::sip::flow::{Flow, Transport};
use crate::sip::message::{Message, Method, StartLine, Via};
use crate::sip::transaction::key::HashKey;
use crate::sip::uas::response::{self, Head};
use crate::telemetry::metrics::Metrics;

/// Status codes that a trunk's peers may get besides its own refusal.
const CODES: [u16; 11] = [200, 400, 405, 416, 420, 481, 487, 501, 503, 505, 513];

/// Who may send calls, and what each trunk answers. A reload replaces both together. The place of a trunk keeps its
/// meaning while the node runs, for calls that wait name it.
pub struct Routes {
    pub trunks: Vec<TrunkFace>,
    pub peers: Peers,
}

impl Routes {
    pub fn new(trunks: Vec<Trunk>, peers: Peers, metrics: &Metrics) -> Self {
        Self { trunks: trunks.into_iter().map(|trunk| TrunkFace::new(trunk, metrics)).collect(), peers }
    }
}

/// A trunk as the SIP side sees it.
pub struct TrunkFace {
    pub trunk: Trunk,
    /// The header fields of its refusal.
    refusal_fields: String,
    requests: [(Transport, [IntCounter; Method::ALL.len()]); 2],
    responses: Vec<(u16, IntCounter)>,
    pub rates: Rates,
    /// Calls above a cap.
    pub limited: IntCounter,
    /// Answers left out that would have been larger than their request.
    too_large: IntCounter,
}

impl TrunkFace {
    fn new(trunk: Trunk, metrics: &Metrics) -> Self {
        let requests = [Transport::Udp, Transport::Tcp].map(|transport| {
            let labels = |method: Method| [trunk.name.as_str(), method.as_str(), transport.label()];
            (transport, Method::ALL.map(|method| metrics.sip_requests.with_label_values(&labels(method))))
        });
        let response =
            |code: u16| (code, metrics.sip_responses.with_label_values(&[trunk.name.as_str(), &code.to_string()]));
        let mut codes = vec![trunk.reject.code];
        codes.extend(CODES.iter().filter(|code| **code != trunk.reject.code));
        Self {
            requests,
            responses: codes.into_iter().map(response).collect(),
            rates: Rates::new(&trunk.limits),
            limited: metrics.calls_limited.with_label_values(&[trunk.name.as_str()]),
            too_large: metrics.sip_dropped.with_label_values(&["larger_than_request"]),
            refusal_fields: trunk.reject.q850.map(reason_field).unwrap_or_default(),
            trunk,
        }
    }

    /// Counts a request.
    pub fn count(&self, message: &Message<'_>, transport: Transport) {
        if let StartLine::Request { method, .. } = message.start_line() {
            self.count_method(method, transport);
        }
    }

    /// Counts an ACK that is not looked at further.
    pub fn count_ack(&self, transport: Transport) {
        self.count_method(Method::Ack, transport);
    }

    fn count_method(&self, method: Method, transport: Transport) {
        if let Some((_, counters)) = self.requests.iter().find(|(of, _)| *of == transport) {
            counters[method as usize].inc();
        }
    }

    /// What every call gets.
    pub fn refusal(&self) -> Head<'_> {
        Head {
            code: self.trunk.reject.code,
            phrase: &self.trunk.reject.phrase,
            fields: &self.refusal_fields,
            tag: None,
            step: response::STEP,
        }
    }

    /// How much longer than it has to be an answer may be.
    fn step(&self) -> usize {
        if self.trunk.path == Path::Private { response::STEP } else { 1 }
    }

    /// Counts an answer and has it written.
    pub fn answer(
        &self,
        message: &Message<'_>,
        via: &Via<'_>,
        flow: Flow,
        head: Head<'_>,
        key: &HashKey,
        answer: impl FnOnce(SocketAddr, Write<'_>),
    ) {
        let counter = self.responses.iter().find(|(code, _)| *code == head.code).map(|(_, counter)| counter);
        let head = Head { step: self.step(), ..head };
        let mut write = |out: &mut Vec<u8>| {
            let start = out.len();
            response::write(out, message, via, flow.remote, head, key);
            // Who forges a peer's address over a public path must not win by it: what the peer gets is no more than
            // what was sent in its name.
            let is_proven = flow.transport != Transport::Udp || self.trunk.path == Path::Private;
            let is_larger = |out: &Vec<u8>| !is_proven && out.len() - start > message.length();
            if is_larger(out) {
                out.truncate(start);
                response::write(out, message, via, flow.remote, Head { fields: "", ..head }, key);
            }
            if is_larger(out) {
                out.truncate(start);
                self.too_large.inc();
            } else if let Some(counter) = counter {
                counter.inc();
            }
        };
        answer(response::destination(via, flow.remote), &mut write);
    }
}

/// The Reason header field (RFC 3326) for a Q.850 cause, with the cause's name in Q.850 table 1.
fn reason_field(cause: u8) -> String {
    let text = match cause {
        1 => ";text=\"Unallocated number\"",
        17 => ";text=\"User busy\"",
        18 => ";text=\"No user responding\"",
        19 => ";text=\"No answer from user\"",
        20 => ";text=\"Subscriber absent\"",
        21 => ";text=\"Call rejected\"",
        _ => "",
    };
    format!("Reason: Q.850;cause={cause}{text}\r\n")
}
