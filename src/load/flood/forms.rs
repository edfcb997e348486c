//! The messages of a call as forms, INVITE and the ACK of its final response, and how they are filled in.
//!
//! An answered call gets its ACK and no BYE: loads are for peers that refuse calls, and `ringproof call` ends what a
//! peer answers. RFC 3261 17.1.1.3.

use std::net::IpAddr;

use super::identifiers::{Identifiers, Lengths};
use super::template::{Digits, Template, Values};
use crate::load::request::Host;
use crate::load::slab::Key;

/// Forms of one way to the peer.
#[derive(Debug)]
pub(crate) struct Forms {
    pub(crate) invite: Template,
    /// The ACK of a refusal: part of the INVITE's transaction.
    pub(crate) ack_refusal: Template,
    /// The ACK of an answer: a transaction of its own, with another branch.
    pub(crate) ack_answer: Template,
    pub(crate) identity: Identity,
}

/// What makes the identifiers of a run and of a way its own.
#[derive(Debug)]
pub(crate) struct Identity {
    seed: u64,
    lengths: Lengths,
    host: Vec<u8>,
}

/// What is a call's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entries {
    /// Its number in the load.
    pub(crate) number: u64,
    pub(crate) key: Key,
    /// The caller's digits.
    pub(crate) caller: u64,
    /// The dialled digits.
    pub(crate) dialled: u64,
}

impl Identity {
    /// For messages that leave from `local`.
    pub(crate) fn new(seed: u64, lengths: Lengths, local: IpAddr) -> Self {
        Self { seed, lengths, host: Host(local).to_string().into_bytes() }
    }
}

impl Forms {
    /// Appends the INVITE of a call, the same each time.
    pub(crate) fn invite(&self, entries: Entries, out: &mut Vec<u8>) {
        self.fill(&self.invite, entries, &[], out);
    }

    /// Appends the ACK of a final response with this code and value of To.
    pub(crate) fn ack(&self, entries: Entries, (code, to): (u16, &[u8]), out: &mut Vec<u8>) {
        let template = if code < 300 { &self.ack_answer } else { &self.ack_refusal };
        self.fill(template, entries, to, out);
    }

    fn fill(&self, template: &Template, entries: Entries, to: &[u8], out: &mut Vec<u8>) {
        let Identity { seed, lengths, host } = &self.identity;
        let identifiers = Identifiers::new(*seed, entries.number, entries.key, *lengths, host);
        let (caller, dialled) = (Digits::of(entries.caller), Digits::of(entries.dialled));
        let values = Values {
            branch: identifiers.branch(),
            call_id: identifiers.call_id(),
            tag: identifiers.tag(),
            caller: caller.as_bytes(),
            dialled: dialled.as_bytes(),
            to,
        };
        template.render(&values, out);
    }
}
