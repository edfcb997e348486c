//! The decision trace: what was read from a call and which rule followed, step by step, for people and programs.
//!
//! Rendered from [`Evidence`](super::evidence::Evidence), so that it tells what was decided. How numbers are written is the caller's choice: a
//! trace that leaves the node masks them.

use serde::Serialize;

use super::assurance::{Assurance, Reason};
use super::event::{CallEvent, CallerSource, Presentation};
use super::evidence::{Finding, Proof, Rule};
use super::verdict::Verdict;
use crate::e164::E164;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `dialled`, `identity`, `privacy`, `verdict`, `line`, `forwarding`, `path`, `level`, `reason` or `result`.
    pub step: &'static str,
    /// The header field, where it is one that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<&'static str>,
    /// What was found or which rule fired, as one word.
    pub found: String,
    /// The number, as far as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The same as a sentence.
    pub text: String,
}

/// The steps that led to the level of `call`. `show` writes numbers; a restricted one is never given to it.
#[must_use]
pub fn steps(call: &CallEvent, show: &dyn Fn(E164) -> String) -> Vec<Step> {
    let evidence = &call.evidence;
    let show = |number: E164| {
        // Whoever hides the number hides it in every header that holds it.
        if evidence.hidden_by.is_none() { show(number) } else { "restricted".to_owned() }
    };
    let mut steps = vec![dialled(call)];
    let mut add = |step, header, found: &str, text: String| {
        steps.push(Step { step, header, found: found.to_owned(), number: None, text });
    };
    if evidence.to_differs {
        add("dialled", Some("To"), "differs", "To names another user than the Request-URI; only a hint".to_owned());
    }
    let order = CallerSource::ALL.into_iter();
    steps.extend(order.filter_map(|source| identity(call, source, &show)));
    let mut add = |step, header, found: &str, text: String| {
        steps.push(Step { step, header, found: found.to_owned(), number: None, text });
    };
    if let Some(hidden) = evidence.hidden_by {
        let use_of_it = match call.presentation {
            Presentation::Restricted => "the number serves the match alone",
            _ => "there is no number to match",
        };
        add("privacy", Some(hidden.header()), "restricted", format!("the caller hides the number; {use_of_it}"));
    }
    if let Some((verdict, header)) = evidence.verdict {
        let (found, text) = match verdict {
            Verdict::Passed(Some(level)) => {
                (level.as_str(), format!("the carrier's check passed with level {}", level.as_str()))
            }
            Verdict::Passed(None) => ("passed", "the carrier's check passed, without a level".to_owned()),
            Verdict::Failed => ("failed", "the carrier's check failed".to_owned()),
            Verdict::Unchecked => ("unchecked", "the carrier has not checked the caller".to_owned()),
        };
        add("verdict", Some(header.as_str()), found, text);
    }
    if let Some(line) = evidence.line {
        add("line", None, line.as_str(), format!("the call comes from a {} line", line.as_str()));
    }
    if let Some(sign) = evidence.forwarded {
        add("forwarding", Some(sign.header()), "forwarded", "the call was forwarded on its way".to_owned());
    }
    match evidence.proof {
        Proof::Path => {}
        Proof::None => {
            add("path", None, "unproven", "a datagram over a public path proves no sender: C at most".to_owned());
        }
        Proof::Ack => add("path", None, "ack", "the peer sent the To-tag of its refusal back".to_owned()),
    }
    let level = evidence.rule.level();
    add("level", None, evidence.rule.as_str(), format!("{}: {}", level.as_str(), rule(evidence.rule)));
    for reason in call.reasons.iter() {
        add("reason", None, reason.as_str(), sentence(reason).to_owned());
    }
    add("result", None, call.assurance.as_str(), result(call.assurance).to_owned());
    steps
}

fn dialled(call: &CallEvent) -> Step {
    let number = call.dialled.map(|number| number.to_string());
    let text = if number.is_some() { "the number called" } else { "the number called cannot be read" };
    let found = call.evidence.dialled.as_str().to_owned();
    Step { step: "dialled", header: None, found, number, text: text.to_owned() }
}

fn identity(call: &CallEvent, source: CallerSource, show: &dyn Fn(E164) -> String) -> Option<Step> {
    let finding = call.evidence.found(source);
    let number = match finding {
        Finding::Unread => return None,
        Finding::Number(number) => Some(show(number)),
        Finding::Nothing | Finding::Invalid | Finding::Ambiguous => None,
    };
    let chosen = call.source == Some(source);
    let text = match finding {
        Finding::Number(_) if chosen => "this number counts as the caller",
        Finding::Number(_) => "a number, which does not count as the caller",
        Finding::Nothing | Finding::Unread => "holds nothing like a number",
        Finding::Invalid => "holds no number by the trunk's rules",
        Finding::Ambiguous => "holds several numbers",
    };
    let screened = match call.evidence.screened.filter(|_| source == CallerSource::Rpid) {
        Some(true) => "; screened by the network",
        Some(false) => "; not screened",
        None => "",
    };
    let found = if chosen { "caller" } else { finding.as_str() }.to_owned();
    Some(Step { step: "identity", header: Some(source.header()), found, number, text: format!("{text}{screened}") })
}

const fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::NoCaller => "there is no usable caller",
        Rule::Presented => "the number is the caller's own word",
        Rule::NotVouched => "nobody who could know vouches for the number on this trunk (asserted_trust)",
        Rule::NotScreened => "Remote-Party-ID does not say that the network has checked it",
        Rule::OnNet => "the operator of the number itself asserts it (asserted_trust = \"on-net\")",
        Rule::National => "an operator asserts a number of the trunk's country on a national trunk",
        Rule::Foreign => "an operator asserts a number of another country than the trunk's",
        Rule::NotNational => "an operator asserts it on a trunk that carries callers from abroad (scope)",
        Rule::Verdict => "the carrier's own check passed with full attestation",
    }
}

const fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::CliWithheld => "no caller number came with the call",
        Reason::CliInvalid => "what came is no number by the trunk's rules",
        Reason::CliAmbiguous => "several different numbers are asserted",
        Reason::FromPaiMismatch => "what is asserted and what is presented are two numbers: D",
        Reason::PresentedDiffers => {
            "the caller presents another number than the network asserts; the asserted one counts"
        }
        Reason::Forwarded => "somebody's call forwarding brought the call here",
        Reason::AssuranceTooLow => "the verification asks for a higher level",
        Reason::LateCall => "the window was over",
        Reason::WrongTrunk => "the number called does not take calls from this trunk",
        Reason::Superseded => "a newer verification took its place",
        Reason::ClientCanceled => "the application ended it",
        Reason::OwnNumber => "the caller's number is one of ours: a forgery or a loop, never matched",
        Reason::StirFailed => "the carrier's check of the caller failed: D",
        Reason::VerdictIgnored => "a verdict stands in a header that this trunk does not declare (verdict_headers)",
        Reason::NotScreened => "the network says that it has not checked the number: C at most",
        Reason::CpcPayphone => "a payphone proves no person (special_lines)",
        Reason::CpcPrison => "a telephone of a prison proves no person (special_lines)",
        Reason::CpcOperator => "an operator's position proves no person (special_lines)",
        Reason::RoamingSuspected => "a caller of the trunk's country came from abroad: C at most",
        Reason::CarrierRetry => "the same caller called the same number a moment before: the carrier tries again",
        Reason::RingbackSuspected => "verified calls rise while our own numbers are seen as callers",
        Reason::Erased => "the data of its phone was erased",
    }
}

const fn result(level: Assurance) -> &'static str {
    match level {
        Assurance::A => "level A: verifies whatever minimum is asked",
        Assurance::B => "level B: verifies where B, C or D is asked",
        Assurance::C => "level C: verifies only where C is enough",
        Assurance::D => "level D: never verifies",
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::call::dialplan::{Dialplan, NumberFormat};
    use crate::call::event::{CallKey, TrunkId};
    use crate::call::judge::{Invite, judge};
    use crate::call::trunk::Trunk;
    use crate::sip::message::{HeaderName, NameAddr, Scanner, StartLine, Uri};

    fn trace(fields: &str) -> Vec<Step> {
        let text = format!("INVITE sip:+442079460200@us SIP/2.0\r\nTo: <sip:+442079460200@us>\r\n{fields}\r\n\r\n");
        let mut scanner = Scanner::default();
        let message = scanner.scan(text.as_bytes()).unwrap();
        let StartLine::Request { uri, .. } = message.start_line() else { panic!() };
        let uri = Uri::parse(uri).unwrap();
        let part = |name| NameAddr::parse(message.only(name).unwrap()).unwrap();
        let (from, to) = (part(HeaderName::From), part(HeaderName::To));
        let (key, received_at) = (CallKey(1), SystemTime::UNIX_EPOCH);
        let invite = Invite { message, uri, from, to, proof: Proof::Path, key, received_at };
        let trunk = Trunk::sandbox(Dialplan::for_country("GB", NumberFormat::Auto).unwrap());
        let call = judge(&invite, TrunkId(0), &trunk, |_| false);
        steps(&call, &|number| number.masked().to_string())
    }

    #[test]
    fn a_trace_names_the_header_the_rule_and_the_level() {
        let steps = trace("From: <sip:+442079460123@c>;tag=1\r\nP-Asserted-Identity: <tel:+447700900123>");
        let told: Vec<_> = steps.iter().map(|step| (step.step, step.header, step.found.as_str())).collect();
        let expected = [
            ("dialled", None, "number"),
            ("identity", Some("P-Asserted-Identity"), "caller"),
            ("identity", Some("From"), "number"),
            ("level", None, "national"),
            ("reason", None, "presented_differs"),
            ("result", None, "B"),
        ];
        assert_eq!(told, expected);
        assert_eq!(steps[1].number.as_deref(), Some("+44********23"));
    }

    #[test]
    fn a_hidden_number_is_in_no_step() {
        let steps =
            trace("From: <sip:+447700900123@c>;tag=1\r\nPrivacy: id\r\nP-Asserted-Identity: <tel:+447700900123>");
        let text = format!("{steps:?}");
        assert!(text.contains("\"restricted\"") && !text.contains("900123") && !text.contains("**"), "{text}");
    }
}
