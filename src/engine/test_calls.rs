//! Test calls: an INVITE of this node's own, let in over the built-in trunk as if a peer had sent it.
//!
//! Owns its text and the wait for its final response. Everything in between is what happens to any call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::clock;
use super::sip_answer::{Arrival, SipShared, TestCall as Placing, Write};
use super::waiting::Owner;
use super::waiting::PATIENCE;
use crate::api::test_calls::{PlaceCall, Placed, TestCall};
use crate::call::dialplan::{Dialplan, NumberFormat};
use crate::call::trunk::Trunk;
use crate::e164::E164;
use crate::load::invite::invite;
use crate::sip::flow::{Flow, Transport};
use crate::sip::message::Scanner;
use crate::sip::transaction::key::TransactionKey;
use crate::verify::Verify;
use crate::verify::script::{Script, ScriptedCall};

/// Where test calls seem to come from and to go: addresses that are nobody's (RFC 5737).
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5060);
const TO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 5060);

/// How often scripted calls are looked for.
const TICK: Duration = Duration::from_millis(200);

/// How the API has test calls placed.
pub fn placing(shared: Arc<SipShared>) -> PlaceCall {
    Box::new(move |call| Box::pin(place(Arc::clone(&shared), call)))
}

/// Places the call and waits for its final response, at most [`PATIENCE`] long. Runs to its end wherever it was begun,
/// so it is not to be dropped half way. `None` where there is no built-in trunk.
async fn place(shared: Arc<SipShared>, call: TestCall) -> Option<Placed> {
    let plan = Dialplan::for_number(call.from.unwrap_or(call.to), NumberFormat::Auto);
    let trunk = plan.ok().map(Trunk::sandbox);
    let message = text(&call);
    let (finish, mut finished) = mpsc::channel(1);
    let mut scanner = Scanner::default();
    let mut response = Vec::new();
    let arrival = Arrival {
        flow: Flow { transport: Transport::Udp, local: TO, remote: FROM },
        owner: Owner::Connection,
        utc: clock::utc(),
        now: clock::boot(),
        instant: clock::instant(),
    };
    let mut placing = Placing { trunk: trunk.as_ref(), only: call.application.0, judged: None };
    let ticket = shared.receive_test(
        &mut placing,
        &mut scanner,
        message.as_bytes(),
        arrival,
        || finish,
        |_, write: Write<'_>| {
            write(&mut response);
        },
    );
    let judged = placing.judged;
    if let Some(ticket) = ticket {
        match timeout(PATIENCE, finished.recv()).await {
            Ok(Some((ticket, outcome))) => {
                shared.finish(&mut scanner, ticket, outcome, clock::boot(), |_, _, write| write(&mut response));
            }
            Ok(None) | Err(_) => {
                if let Some(call) = shared.waiting.take(TransactionKey(ticket)) {
                    shared.give_up(&mut scanner, &call, |_, _, write| write(&mut response));
                }
            }
        }
    }
    let (code, reason) = status(&response)?;
    Some(Placed { message, code, reason, judged })
}

/// Places the calls of the test phones that call by themselves, until `stop` turns true.
pub async fn run_scripts(shared: Arc<SipShared>, verify: Verify, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            _ = tick.tick() => for call in verify.take_scripted() {
                calls.spawn(place(Arc::clone(&shared), scripted(&call)));
            },
        }
        while calls.try_join_next().is_some() {}
    }
    // Each ends by itself within its patience.
    calls.join_all().await;
}

/// What a phone of the table sends.
fn scripted(call: &ScriptedCall) -> TestCall {
    let asserted = |value: String| ("P-Asserted-Identity".to_owned(), value);
    let (from, headers) = match call.script {
        Script::Withheld => (None, Vec::new()),
        Script::Forwarded => {
            let diversion = format!("<sip:{}@{}>;reason=unconditional", call.phone, FROM.ip());
            (Some(call.phone), vec![("Diversion".to_owned(), diversion)])
        }
        Script::Mismatch => {
            (Some(call.phone), vec![asserted(format!("<sip:{}@{}>", neighbour(call.phone), FROM.ip()))])
        }
        Script::NotAsserted => (Some(call.phone), vec![asserted(String::new())]),
        _ => (Some(call.phone), Vec::new()),
    };
    TestCall { application: call.application, from, to: call.number, headers }
}

/// Another phone of the same reserved range, which plays no part.
fn neighbour(phone: E164) -> E164 {
    E164::from_u64(phone.as_u64() - 10).unwrap_or(phone)
}

/// The INVITE. A withheld caller is what a network makes of it (RFC 3323 4.1.1.3, RFC 3325 7), unless the call says
/// otherwise.
fn text(call: &TestCall) -> String {
    let mut headers = call.headers.clone();
    if call.from.is_none() {
        let anonymous = format!("<sip:anonymous@{}>", FROM.ip());
        let usual = [
            ("From", "f", "\"Anonymous\" <sip:anonymous@anonymous.invalid>"),
            ("P-Asserted-Identity", "", ""),
            ("Privacy", "", "id"),
            ("Contact", "m", &anonymous),
        ];
        for (name, compact, value) in usual {
            let is_given = |known: &str| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(compact);
            if !call.headers.iter().any(|(known, _)| is_given(known)) {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    // An empty value tells the INVITE to leave out what it would have; any other field just does not come.
    let has_default =
        |name: &str| ["From", "f", "P-Asserted-Identity"].iter().any(|own| own.eq_ignore_ascii_case(name));
    headers.retain(|(name, value)| !value.is_empty() || has_default(name));
    // Where nobody calls, no field is left that would name the first of the two.
    invite((call.from.unwrap_or(call.to), call.to), (FROM, TO), &headers)
}

/// Code and phrase of a response.
fn status(response: &[u8]) -> Option<(u16, String)> {
    let line = response.split(|byte| *byte == b'\r').next()?;
    let (code, phrase) = std::str::from_utf8(line).ok()?.strip_prefix("SIP/2.0 ")?.split_once(' ')?;
    Some((code.parse().ok()?, phrase.to_owned()))
}
