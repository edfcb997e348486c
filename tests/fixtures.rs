//! Every message of `sip-fixtures/` leads to what its manifest says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use ringproof::call::event::{CallKey, Presentation, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::config::{Configuration, parse};
use ringproof::sip::framing::{Cut, FrameError, Framer};
use ringproof::sip::message::Scanner;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use toml::{Table, Value};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sip-fixtures");

#[test]
fn every_file_has_an_entry_and_every_entry_a_file() {
    let manifest = manifest();
    let entries = fixtures(&manifest).into_iter().chain(streams(&manifest));
    let listed: BTreeSet<String> = entries.map(|one| text(one, "file").to_owned()).collect();
    let files = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present: BTreeSet<String> =
        files.filter(|name| Path::new(name).extension().is_some_and(|end| end == "sip" || end == "stream")).collect();
    assert_eq!(listed, present);
    assert!(present.len() > 150, "only {} fixtures", present.len());
}

#[test]
fn every_message_leads_to_its_outcome() {
    let manifest = manifest();
    let mut wrong = Vec::new();
    for fixture in fixtures(&manifest) {
        let expected = expected(fixture);
        let seen = outcome(&manifest, fixture);
        if seen != expected {
            wrong.push(format!("{}:\n  expected {expected:?}\n  seen     {seen:?}", text(fixture, "file")));
        }
    }
    assert!(wrong.is_empty(), "{} of the fixtures:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_stream_is_cut_into_its_pieces() {
    let manifest = manifest();
    for stream in streams(&manifest) {
        let bytes = std::fs::read(Path::new(FOLDER).join(text(stream, "file"))).unwrap();
        let (mut framer, mut rest, mut pieces) = (Framer::default(), &bytes[..], Vec::new());
        let end = loop {
            match framer.cut(rest) {
                Ok(Cut::Wait) if rest.is_empty() => break "open",
                Ok(Cut::Wait) => break "unfinished",
                Ok(Cut::Blank(length)) => rest = &rest[length..],
                Ok(Cut::Ping(length)) => {
                    rest = &rest[length..];
                    pieces.push("ping".to_owned());
                }
                Ok(Cut::Message(length)) => {
                    let method = rest.split(|byte| *byte == b' ').next().unwrap();
                    pieces.push(String::from_utf8(method.to_vec()).unwrap());
                    rest = &rest[length..];
                }
                Err(FrameError::NoLength) => break "no_length",
                Err(FrameError::Length) => break "length",
                Err(FrameError::TooLarge) => break "too_large",
                Err(FrameError::NotSip) => break "not_sip",
            }
        };
        let expected: Vec<&str> =
            stream["pieces"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect();
        assert_eq!(
            (pieces, end),
            (expected.iter().map(ToString::to_string).collect(), text(stream, "end")),
            "{stream}"
        );
    }
}

/// An outcome as the manifest writes it: keys with their values, reasons sorted.
type Outcome = Vec<(&'static str, String)>;

const JUDGED: [&str; 6] = ["caller", "caller_source", "presented", "presentation", "dialled", "assurance"];

fn expected(fixture: &Table) -> Outcome {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut outcome = vec![("reply", plain(&fixture["reply"]))];
    outcome.extend(JUDGED.iter().filter_map(|key| Some((*key, plain(fixture.get(*key)?)))));
    if let Some(reasons) = fixture.get("reasons") {
        let reasons: BTreeSet<String> = reasons.as_array().unwrap().iter().map(plain).collect();
        outcome.push(("reasons", format!("{reasons:?}")));
    }
    outcome
}

fn outcome(manifest: &Table, fixture: &Table) -> Outcome {
    let configuration = configuration(manifest, text(fixture, "trunk"));
    let trunk = &configuration.trunks[0];
    let bytes = std::fs::read(Path::new(FOLDER).join(text(fixture, "file"))).unwrap();
    let mut scanner = Scanner::default();
    let Ok(message) = scanner.scan(&bytes) else { return vec![("reply", "none".to_owned())] };
    let reply = |code: u16| vec![("reply", code.to_string())];
    let request = match dispatch(message) {
        Dispatch::Drop(_) => return vec![("reply", "none".to_owned())],
        Dispatch::Respond(_, status) => return reply(status.code()),
        Dispatch::Options(_) => return reply(200),
        // No INVITE came before it.
        Dispatch::Cancel(_) => return reply(481),
        Dispatch::Invite(request) => request,
    };
    let invite = Invite {
        message: request.message,
        uri: request.uri,
        from: request.from,
        to: request.to,
        key: CallKey(0),
        received_at: SystemTime::UNIX_EPOCH,
    };
    let call = judge(&invite, TrunkId(0), trunk, |number| configuration.verify.numbers.find(number).is_some());
    let mut outcome = reply(trunk.reject.code);
    let presentation = match call.presentation {
        Presentation::Allowed => "allowed",
        Presentation::Restricted => "restricted",
        Presentation::Unavailable => "unavailable",
    };
    let judged = [
        call.caller.map(|number| number.to_string()),
        call.source.map(|source| source.as_str().to_owned()),
        call.presented.map(|number| number.to_string()),
        Some(presentation.to_owned()),
        call.dialled.map(|number| number.to_string()),
        Some(call.assurance.as_str().to_owned()),
    ];
    outcome.extend(JUDGED.into_iter().zip(judged).filter_map(|(key, value)| Some((key, value?))));
    let reasons: BTreeSet<String> = call.reasons.iter().map(|reason| reason.as_str().to_owned()).collect();
    outcome.push(("reasons", format!("{reasons:?}")));
    outcome
}

/// A whole configuration with one of the manifest's trunks and all of its numbers, read as an operator's would be.
fn configuration(manifest: &Table, trunk: &str) -> Configuration {
    let mut profile = manifest["trunk"][trunk].as_table().unwrap().clone();
    profile.insert("name".to_owned(), trunk.into());
    profile.insert("peers".to_owned(), vec!["192.0.2.1/32"].into());
    let mut numbers = manifest["number"].as_array().unwrap().clone();
    for number in &mut numbers {
        number.as_table_mut().unwrap().insert("trunks".to_owned(), vec![trunk].into());
    }
    let mut whole = Table::new();
    whole.insert("sip".to_owned(), toml::toml! { listen = ["udp://127.0.0.1:5060"] }.into());
    whole.insert("trunk".to_owned(), vec![Value::Table(profile)].into());
    whole.insert("number".to_owned(), numbers.into());
    whole.insert("application".to_owned(), vec![Value::Table(toml::toml! { name = "demo" })].into());
    parse(&whole.to_string(), "manifest.toml", &|_| None).unwrap_or_else(|errors| panic!("{trunk}: {errors}"))
}

fn manifest() -> Table {
    std::fs::read_to_string(Path::new(FOLDER).join("manifest.toml")).unwrap().parse().unwrap()
}

fn fixtures(manifest: &Table) -> Vec<&Table> {
    manifest["fixture"].as_array().unwrap().iter().map(|one| one.as_table().unwrap()).collect()
}

fn streams(manifest: &Table) -> Vec<&Table> {
    manifest["stream"].as_array().unwrap().iter().map(|one| one.as_table().unwrap()).collect()
}

fn text<'t>(table: &'t Table, key: &str) -> &'t str {
    table[key].as_str().unwrap_or_else(|| panic!("{key} is missing"))
}
