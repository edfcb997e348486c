//! What the node would make of one message: its answer, and the steps of its judgement. Nothing is sent or stored.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::peers::Peers;
use crate::call::event::{CallEvent, CallKey, TrunkId};
use crate::call::judge::{Invite, judge};
use crate::call::trace::{self, Step};
use crate::call::trunk::Trunk;
use crate::config::Configuration;
use crate::sip::message::{Request, Scanner, StartLine, Uri};
use crate::sip::uas::dispatch::{Dispatch, Dropped, dispatch};

/// What is told of a message.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The trunk that it was read by.
    pub trunk: String,
    /// The method, or why there is none.
    pub request: String,
    /// The answer: a status code and its phrase, or why there is none.
    pub answer: String,
    /// Level of proof of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assurance: Option<&'static str>,
    /// What led to it, in order.
    pub steps: Vec<Step>,
}

/// Why nothing is told. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No trunk has this name.
    #[error("the configuration has no trunk `{name}`; it has {known}")]
    NoTrunk {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No trunk has this address among its peers.
    #[error("no trunk of the configuration has {0} among its peers; name one with --trunk")]
    NoPeer(IpAddr),
}

/// The trunk with this name.
///
/// # Errors
/// `ExplainError::NoTrunk`.
pub fn trunk_named<'c>(configuration: &'c Configuration, name: &str) -> Result<&'c Trunk, ExplainError> {
    configuration.trunks.iter().find(|trunk| trunk.name == name).ok_or_else(|| {
        let known: Vec<String> = configuration.trunks.iter().map(|trunk| format!("`{}`", trunk.name)).collect();
        ExplainError::NoTrunk { name: name.chars().take(64).collect(), known: known.join(", ") }
    })
}

/// The trunk that takes what comes from `peer`.
///
/// # Errors
/// `ExplainError::NoPeer`.
pub fn trunk_of(configuration: &Configuration, peer: IpAddr) -> Result<&Trunk, ExplainError> {
    let TrunkId(place) = Peers::new(&configuration.peers).trunk(peer).ok_or(ExplainError::NoPeer(peer))?;
    configuration.trunks.get(usize::from(place)).ok_or(ExplainError::NoPeer(peer))
}

/// Tells what would become of `bytes`, one message that comes over `trunk`, in a datagram or over a connection. Numbers
/// are shown in full, for whoever has the message has them.
#[must_use]
pub fn explain(configuration: &Configuration, trunk: &Trunk, bytes: &[u8], connected: bool) -> Explained {
    let mut scanner = Scanner::default();
    let (request, answer, call) = match scanner.scan(bytes) {
        Err(error) => (error.to_string(), "none: dropped and counted".to_owned(), None),
        Ok(message) => {
            let request = match message.start_line() {
                StartLine::Request { method, .. } => format!("{}, {} bytes", method.as_str(), bytes.len()),
                StartLine::Response => format!("a response, {} bytes", bytes.len()),
            };
            let (answer, call) = match dispatch(message) {
                Dispatch::Drop(why) => (dropped(why).to_owned(), None),
                Dispatch::Ack(_) => ("none: an ACK is never answered".to_owned(), None),
                Dispatch::Respond(_, status) => (format!("{} {}", status.code(), status.phrase()), None),
                Dispatch::Options(_) => ("200 OK; 503 while the node drains".to_owned(), None),
                Dispatch::Cancel(_) => ("200 OK where its INVITE is known, else 481".to_owned(), None),
                Dispatch::Invite(request, uri) => {
                    let answer = format!("{} {}", trunk.reject.code, trunk.reject.phrase);
                    (answer, Some(judged(configuration, trunk, (&request, uri), connected)))
                }
            };
            (request, answer, call)
        }
    };
    let steps = call.as_ref().map(|call| trace::steps(call, &|number| number.to_string())).unwrap_or_default();
    let assurance = call.map(|call| call.assurance.as_str());
    Explained { trunk: trunk.name.clone(), request, answer, assurance, steps }
}

fn judged(
    configuration: &Configuration,
    trunk: &Trunk,
    request: (&Request<'_>, Uri<'_>),
    connected: bool,
) -> CallEvent {
    let invite = Invite::of(request, trunk.proof(connected), CallKey(0), SystemTime::UNIX_EPOCH);
    judge(&invite, TrunkId(0), trunk, |number| configuration.verify.numbers.find(number).is_some())
}

const fn dropped(why: Dropped) -> &'static str {
    match why {
        Dropped::Ack => "none: an ACK is never answered",
        Dropped::Response => "none: this node asks nothing, so it takes no response",
        Dropped::NoVia => "none: without a readable Via there is no way back",
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "trunk    {}", self.trunk)?;
        writeln!(f, "request  {}", self.request)?;
        writeln!(f, "answer   {}", self.answer)?;
        for Step { step, header, found, number, text } in &self.steps {
            let (header, number) = (header.unwrap_or(""), number.as_deref().unwrap_or(""));
            writeln!(f, "{step:<10} {header:<24} {found:<20} {number:<17} {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:+966115000042@gw SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\n\
        From: <sip:+966500000123@gw>;tag=1\r\nTo: <sip:+966115000042@gw>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\
        P-Asserted-Identity: <sip:+966500000123@gw>\r\nContent-Length: 0\r\n\r\n";

    fn shipped() -> Configuration {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap();
        crate::config::parse(&text, "config.toml", &|_| None).unwrap()
    }

    #[test]
    fn a_call_is_told_step_by_step_and_other_messages_by_their_answer() {
        let configuration = shipped();
        let trunk = trunk_of(&configuration, "127.0.0.1".parse().unwrap()).unwrap();
        let told = explain(&configuration, trunk, INVITE.as_bytes(), false);
        assert_eq!((told.answer.as_str(), told.assurance), ("486 Busy Here", Some("B")));
        let text = told.to_string();
        assert!(text.contains("P-Asserted-Identity") && text.contains("+966500000123"), "{text}");
        let answer =
            |from: &str, to: &str| explain(&configuration, trunk, INVITE.replace(from, to).as_bytes(), false).answer;
        assert_eq!(answer("INVITE", "REGISTER"), "405 Method Not Allowed");
        assert_eq!(answer("CSeq: 1", "CSeq: x"), "400 Bad Request");
        assert!(answer("Via", "Vai").starts_with("none"));
    }

    #[test]
    fn a_trunk_that_is_not_there_is_told_with_those_that_are() {
        let configuration = shipped();
        let error = trunk_named(&configuration, "nobody").unwrap_err().to_string();
        assert!(error.contains("`nobody`") && error.contains("`local`"), "{error}");
        assert!(trunk_of(&configuration, "192.0.2.1".parse().unwrap()).is_err());
    }
}
