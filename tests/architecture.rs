//! The import arrows between modules. A new arrow is a design change: it is made here, alone, with its reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each module may import from this crate. `sip` is three: what is on the wire, the way it took, and the rest.
const ARROWS: [(&str, &[&str]); 23] = [
    ("e164", &[]),
    ("telemetry", &[]),
    ("sip::message", &[]),
    ("sip::flow", &[]),
    ("sip::framing", &["sip::message"]),
    ("sip::transaction", &["sip::message"]),
    ("sip::uas", &["sip::message", "sip::transaction"]),
    ("call", &["e164", "sip::message", "sip::flow"]),
    ("matcher", &["call", "e164"]),
    // An event tells the facts of the call behind it.
    ("outbox", &["call", "matcher", "e164"]),
    // A receipt tells a phone from its HMAC.
    ("receipt", &["e164", "matcher"]),
    // An outcome is told of a verification and the call behind it; checkpoints are signed as receipts are.
    ("audit", &["matcher", "outbox", "receipt"]),
    // Rows hold call facts, and the writer counts its commits.
    ("store", &["audit", "call", "matcher", "outbox", "receipt", "e164", "telemetry"]),
    ("verify", &["audit", "call", "matcher", "outbox", "receipt", "store", "e164", "telemetry"]),
    ("webhook", &["outbox", "store", "telemetry"]),
    ("api", &["verify", "matcher", "e164", "telemetry"]),
    ("admin", &["verify", "matcher", "e164", "telemetry"]),
    ("load", &["sip::message", "sip::flow", "sip::framing", "transport", "webhook", "e164"]),
    // It reads captures as the node reads the wire.
    ("learn", &["call", "e164", "sip::framing", "sip::message", "sip::uas"]),
    ("transport", &["sip::flow", "sip::framing", "telemetry"]),
    // It looks at sockets, the database and endpoints in the ways in which the node uses them.
    ("doctor", &["store", "telemetry", "transport", "webhook"]),
    // It fills the settings types of the others.
    ("config", &["api", "call", "e164", "outbox", "store", "transport", "verify", "webhook"]),
    (
        "engine",
        &[
            "admin",
            "api",
            "audit",
            "call",
            "config",
            "doctor",
            "e164",
            // A test call begins as the text of an INVITE, which `load` writes.
            "load",
            "matcher",
            "outbox",
            "receipt",
            "sip::flow",
            "sip::framing",
            "sip::message",
            "sip::transaction",
            "sip::uas",
            "store",
            "telemetry",
            "transport",
            "verify",
            "webhook",
        ],
    ),
];

/// Modules without IO, clocks, locks across tasks or async: state, input and time in, values out.
const PURE: [&str; 9] =
    ["audit", "e164", "sip::framing", "sip::message", "sip::transaction", "sip::uas", "call", "outbox", "receipt"];

/// What pure code may not name. `matcher` is held to it but for its sharded maps.
const IMPURE: [&str; 8] =
    ["tokio", "async ", "std::fs", "std::thread", "UdpSocket", "TcpStream", "Instant::now", "SystemTime::now"];

#[test]
fn imports_follow_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for (file, module, source) in sources() {
        let Some(arrows) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} has no line in the table", file.display()));
            continue;
        };
        for target in imports(&source) {
            if target != module && !arrows.contains(&target.as_str()) {
                wrong.push(format!("{}: {module} -> {target}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the table does not have:\n{}", wrong.join("\n"));
}

#[test]
fn every_arrow_of_the_table_leads_to_a_module() {
    let modules: BTreeSet<String> = sources().into_iter().map(|(_, module, _)| module).collect();
    for (module, arrows) in ARROWS {
        for name in arrows.iter().chain([&module]) {
            assert!(modules.contains(*name), "{name} is no module");
        }
    }
}

#[test]
fn pure_modules_name_no_io_clock_or_task() {
    let mut wrong = Vec::new();
    for (file, module, source) in sources() {
        if PURE.contains(&module.as_str()) || module == "matcher" {
            let found = IMPURE.iter().filter(|word| source.contains(**word));
            wrong.extend(found.map(|word| format!("{}: {word}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_groups_and_in_paths() {
    let source = "use crate::{admin, sip::message::Via};\nlet x = crate::store::open();\nuse crate::sip::flow::Flow;";
    let found: Vec<String> = imports(source).into_iter().collect();
    assert_eq!(found, ["admin", "sip::flow", "sip::message", "store"]);
}

/// Every source file of the library but the crate root and the program, with its module and its text without tests
/// and comments.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 80, "only {} files found", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(PathBuf, String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(root, &path, found);
            }
            continue;
        }
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if !is_source || name == "tests" || matches!(parts[..], ["lib"] | ["main", ..] | ["sip", "mod"]) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        found.push((inside.clone(), module_of(&parts), code.join("\n")));
    }
}

fn module_of(path: &[&str]) -> String {
    match path {
        ["sip", part, ..] => format!("sip::{part}"),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

fn imports(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let paths: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for path in paths {
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
            let parts: Vec<&str> = path[..end].split("::").filter(|part| !part.is_empty()).collect();
            found.insert(module_of(&parts));
        }
    }
    found.remove("");
    found
}
