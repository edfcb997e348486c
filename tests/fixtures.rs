//! Every message of `sip-fixtures/` leads to what its manifest says: a test for each, named by its case and file, so that
//! `cargo test --test fixtures -- --list` shows which cases of the field are covered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use libtest_mimic::{Arguments, Trial};
use ringproof::call::event::{CallKey, Presentation, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::config::{Configuration, parse};
use ringproof::sip::framing::{Cut, FrameError, Framer};
use ringproof::sip::message::Scanner;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use toml::{Table, Value};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sip-fixtures");

fn main() {
    let arguments = Arguments::from_args();
    let manifest: &'static Table = Box::leak(Box::new(manifest()));
    let mut tests = vec![Trial::test("every_file_has_an_entry_and_every_entry_a_file", || {
        every_file_has_an_entry(manifest);
        Ok(())
    })];
    tests.push(Trial::test("rfc4475_and_rfc5118_are_here_whole", || {
        torture_messages_are_whole(manifest);
        Ok(())
    }));
    for fixture in fixtures(manifest) {
        tests.push(Trial::test(name(fixture), move || {
            assert_eq!(outcome(manifest, fixture), expected(fixture), "{}", text(fixture, "shows"));
            Ok(())
        }));
    }
    for stream in streams(manifest) {
        tests.push(Trial::test(name(stream), move || {
            is_cut_into_its_pieces(stream);
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, tests).exit();
}

/// The case and the file.
fn name(entry: &Table) -> String {
    format!("{} {}", text(entry, "id"), text(entry, "file"))
}

fn every_file_has_an_entry(manifest: &Table) {
    let entries = fixtures(manifest).into_iter().chain(streams(manifest));
    let listed: BTreeSet<String> = entries.map(|one| text(one, "file").to_owned()).collect();
    let files = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present: BTreeSet<String> =
        files.filter(|name| Path::new(name).extension().is_some_and(|end| end == "sip" || end == "stream")).collect();
    assert_eq!(listed, present);
    assert!(present.len() > 600, "only {} fixtures", present.len());
}

/// Each message that RFC 4475 3 and RFC 5118 4 give a name to.
fn torture_messages_are_whole(manifest: &Table) {
    const RFC_4475: [&str; 49] = [
        "badaspec",
        "badbranch",
        "baddate",
        "baddn",
        "badinv01",
        "badvers",
        "bcast",
        "bext01",
        "bigcode",
        "clerr",
        "cparam01",
        "cparam02",
        "dblreq",
        "esc01",
        "esc02",
        "escnull",
        "escruri",
        "insuf",
        "intmeth",
        "inv2543",
        "invut",
        "longreq",
        "ltgtruri",
        "lwsdisp",
        "lwsruri",
        "lwsstart",
        "mcl01",
        "mismatch01",
        "mismatch02",
        "mpart01",
        "multi01",
        "ncl",
        "noreason",
        "novelsc",
        "quotbal",
        "regaut01",
        "regbadct",
        "regescrt",
        "scalar02",
        "scalarlg",
        "sdp01",
        "semiuri",
        "transports",
        "trws",
        "unkscm",
        "unksm2",
        "unreason",
        "wsinv",
        "zeromf",
    ];
    let of = |prefix: &str| -> BTreeSet<String> {
        let files = fixtures(manifest).into_iter().map(|one| text(one, "file"));
        files.filter_map(|file| Some(file.strip_prefix(prefix)?.strip_suffix(".sip")?.to_owned())).collect()
    };
    assert_eq!(of("rfc4475-"), RFC_4475.map(str::to_owned).into());
    assert_eq!(of("rfc5118-").len(), 12);
}

fn is_cut_into_its_pieces(stream: &Table) {
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
    assert_eq!((pieces, end), (expected.iter().map(ToString::to_string).collect(), text(stream, "end")), "{stream}");
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
    let (request, uri) = match dispatch(message) {
        Dispatch::Drop(_) | Dispatch::Ack(_) => return vec![("reply", "none".to_owned())],
        Dispatch::Respond(_, status) => return reply(status.code()),
        Dispatch::Options(_) => return reply(200),
        // No INVITE came before it.
        Dispatch::Cancel(_) => return reply(481),
        Dispatch::Invite(request, uri) => (request, uri),
    };
    let invite = Invite::of((&request, uri), trunk.proof(false), CallKey(0), SystemTime::UNIX_EPOCH);
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
