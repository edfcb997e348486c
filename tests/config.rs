//! The configuration: the shipped file, its defaults, and what broken files are told.
//!
//! `tests/broken-configs/` holds broken files and, beside each, what it is told. After a wording changes,
//! `UPDATE_EXPECTED=1 cargo test --test config` writes the `.txt` files anew: read their difference before it is kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use ringproof::api::scope::{Scope as KeyScope, Scopes};
use ringproof::call::assurance::Assurance;
use ringproof::call::dialplan::Repair;
use ringproof::call::event::{CallerSource, TrunkId};
use ringproof::call::trunk::{Confirm, DidSource, Forwarded, Limits, Reject, Restricted, Scope, SpecialLines, Trust};
use ringproof::call::verdict::{Attestation, VerdictHeader};
use ringproof::config::{ConfigErrors, Configuration, effective, load, parse, reparse, warnings};
use ringproof::outbox::event::EventType;
use ringproof::verify::settings::{ApplicationId, Rate};
use ringproof::webhook::signing_key::SigningKey;
use secrecy::ExposeSecret;

const SHIPPED: &str = include_str!("../config.toml");
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn shipped_file_has_the_documented_defaults() {
    let configuration = load(&root().join("config.toml")).unwrap();
    assert_eq!(configuration.node_name, "edge-1");
    assert_eq!(configuration.data_dir, Path::new("ringproof-data"));
    let listen: Vec<String> = configuration.sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]);
    let tcp = configuration.sip.tcp;
    assert_eq!((tcp.connections, tcp.connections_per_peer), (16_384, 12_288));
    assert_eq!((tcp.idle, tcp.message), (Duration::from_mins(15), Duration::from_secs(10)));
    assert!(configuration.sip.workers >= 1);
    assert_eq!(configuration.sip.recent_calls, 1_048_576);
    assert_eq!(configuration.sip.drain, Duration::from_secs(30));

    let trunk = &configuration.trunks[0];
    assert_eq!(trunk.name, "local");
    assert_eq!(trunk.dialplan.country(), "SA");
    assert_eq!(trunk.scope, Scope::National);
    assert_eq!(trunk.path, ringproof::call::trunk::Path::Private);
    assert_eq!(trunk.reject, Reject { code: 486, phrase: "Busy Here".into(), q850: Some(17) });
    assert_eq!(trunk.sources, [CallerSource::Pai, CallerSource::From]);
    assert_eq!(trunk.asserted_trust, Trust::Operator);
    assert_eq!(trunk.restricted, Restricted::MatchOnly);
    assert_eq!(trunk.did, DidSource::RequestUri);
    assert_eq!(trunk.forwarded, Forwarded::Refuse);
    let peers = ["127.0.0.0/8", "::1/128"].map(|network| (network.parse().unwrap(), TrunkId(0)));
    assert_eq!(configuration.peers, peers);

    assert_eq!(configuration.verify.trunks, ["local", "sandbox"]);
    let [range] = configuration.verify.numbers.ranges() else { panic!("one range") };
    assert_eq!((range.first.to_string().as_str(), range.count), ("+966115000000", 100));
    assert_eq!((&range.trunks[..], &range.applications[..]), (&[TrunkId(0)][..], &[ApplicationId(0)][..]));
    assert_eq!(range.cool_down, Duration::from_mins(1));

    let application = &configuration.verify.applications[0];
    assert_eq!((application.name.as_str(), application.live), ("demo", false));
    assert_eq!(application.ttl, Duration::from_mins(2));
    assert_eq!(application.minimum_assurance, Assurance::C);
    let rate = |count| Some(Rate { count, per: Duration::from_mins(10) });
    assert_eq!(application.limits.creates_per_phone, rate(5));
    assert_eq!(application.limits.creates_per_client_ip, rate(20));
    assert_eq!(application.limits.creates_per_second, None);
    assert_eq!(application.limits.pending_per_phone, 3);
    assert!(configuration.keys.is_empty() && configuration.webhooks.is_empty());

    assert_eq!(configuration.api_listen, address("127.0.0.1:8080"));
    let api = &configuration.api;
    assert_eq!((api.connections, api.connections_per_address), (16_384, Some(1024)));
    assert!(api.tls.is_none() && api.public_url.is_none() && api.trusted_proxies.is_empty());
    assert_eq!(configuration.admin_listen, address("127.0.0.1:9090"));
    assert!(configuration.admin_token.is_none());
    assert_eq!(configuration.verify.max_pending, 5_000_000);
    let retention = &configuration.retention;
    let days = |days: u64| Duration::from_hours(days * 24);
    assert_eq!((retention.verifications, retention.calls, retention.events), (days(30), days(30), days(30)));
    assert_eq!(retention.audit, days(400));
}

#[test]
fn commented_keys_of_the_shipped_file_are_the_defaults() {
    let shipped = effective(&read(SHIPPED).unwrap());
    let mut defaults = 0;
    for (index, line) in SHIPPED.lines().enumerate() {
        let Some(key) = commented_key(line) else { continue };
        if line.contains("# not in this version") || line.contains("default: none") || in_webhook(index) {
            continue;
        }
        defaults += 1;
        let configuration = read(&with_line(index, key)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(effective(&configuration), shipped, "{line}");
    }
    assert!(defaults >= 15, "{defaults}");
}

#[test]
fn keys_of_later_versions_are_told_as_such() {
    let mut later = 0;
    for (index, line) in SHIPPED.lines().enumerate().filter(|(_, line)| line.contains("# not in this version")) {
        let key = commented_key(line).unwrap_or_else(|| panic!("{line}"));
        let errors = read(&with_line(index, key)).unwrap_err().to_string();
        assert!(errors.contains("is not in this version") && errors.lines().count() == 1, "{line}\n{errors}");
        later += 1;
    }
    assert_eq!(later, 2);
}

#[test]
fn the_webhook_of_the_shipped_file_is_a_working_one() {
    let lines = SHIPPED.lines().enumerate().map(|(index, line)| match line.strip_prefix("# ") {
        Some(key) if in_webhook(index) => key,
        _ => line,
    });
    let configuration = read(&lines.collect::<Vec<_>>().join("\n")).unwrap_or_else(|errors| panic!("{errors}"));
    let [endpoint] = &configuration.webhooks[..] else { panic!("one webhook") };
    assert_eq!(endpoint.application, "demo");
    assert!(endpoint.allow_private);
    let terminal: Vec<EventType> = EventType::ALL.into_iter().filter(|event| event.is_terminal()).collect();
    assert_eq!(endpoint.events, terminal);
    let key = SigningKey::Hmac((0u8..32).collect::<Vec<_>>().into());
    assert!(endpoint.secrets[0] == key);
    let shown = effective(&configuration);
    assert!(shown.contains("whsec_***") && !shown.contains(&SECRET[6..]), "{shown}");
}

#[test]
fn everything_a_file_can_say_is_read() {
    let configuration = read(&full()).unwrap_or_else(|errors| panic!("{errors}"));
    let listen: Vec<String> = configuration.sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060", "tcp://[::]:5061"]);
    let tcp = configuration.sip.tcp;
    assert_eq!((tcp.connections, tcp.connections_per_peer), (100, 10));
    assert_eq!((tcp.idle, tcp.message), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!(configuration.sip.workers, 3);
    let trunk = &configuration.trunks[1];
    assert_eq!(trunk.reject, Reject { code: 603, phrase: "No, thank you".into(), q850: None });
    assert_eq!(trunk.sources, [CallerSource::From]);
    assert_eq!(trunk.asserted_trust, Trust::OnNet);
    assert_eq!(trunk.verdict_headers, [VerdictHeader::XTwilioVerstat, VerdictHeader::Verstat]);
    assert_eq!((trunk.bare_verdict, trunk.special_lines), (Some(Attestation::B), SpecialLines::Flag));
    assert_eq!(trunk.dialplan.tech_prefix(), "99#");
    assert_eq!(trunk.dialplan.repairs(), [Repair::PlusInternational, Repair::PlusNational]);
    let first = &configuration.trunks[0];
    assert_eq!(first.confirm, Confirm::Ack);
    let limits = Limits { calls_per_second: 500, peer_concurrent: 7, ..Limits::default() };
    assert_eq!(first.limits, limits);
    assert_eq!(
        configuration.trunks[0].reject,
        Reject { code: 480, phrase: "Temporarily Unavailable".into(), q850: Some(18) }
    );
    let shop = &configuration.verify.applications[1];
    assert_eq!((shop.live, shop.minimum_assurance), (true, Assurance::B));
    assert_eq!(shop.limits.creates_per_phone, None);
    assert_eq!(shop.limits.creates_per_second, Some(50));
    assert_eq!(configuration.keys[0].application, ApplicationId(1));
    assert_eq!((configuration.keys[0].hash, configuration.keys[0].scopes), ([0xab; 32], Scopes::ALL));
    let limited = &configuration.keys[1];
    assert_eq!((limited.hash, limited.application), ([0xac; 32], ApplicationId(1)));
    assert_eq!(limited.scopes.iter().collect::<Vec<_>>(), [KeyScope::VerificationsWrite, KeyScope::CallsRead]);
    assert_eq!(limited.expires, Some(UNIX_EPOCH + Duration::from_hours(500_377)));
    assert_eq!(limited.cidrs, ["10.0.0.0/8", "2001:db8::1/128"].map(|network| network.parse().unwrap()));
    assert_eq!(configuration.api.public_url.as_deref(), Some("https://verify.example:8443"));
    assert_eq!(configuration.api.trusted_proxies, ["127.0.0.1/32".parse().unwrap()]);
    assert_eq!((configuration.api.connections, configuration.api.connections_per_address), (50_000, None));
    assert_eq!(configuration.admin_token.as_ref().unwrap().expose_secret(), "from-outside");
    let [first, second] = &configuration.webhooks[..] else { panic!("two webhooks") };
    assert_eq!((first.secrets.len(), first.events.len()), (2, EventType::ALL.len()));
    assert_eq!(second.events, [EventType::Verified, EventType::LateCall]);
    assert!(!first.allow_private && second.allow_private);
    assert_ne!(first.id, second.id);
}

#[test]
fn effective_settings_read_back_as_themselves() {
    for text in [SHIPPED.to_owned(), full()] {
        let shown = effective(&read(&text).unwrap());
        for secret in [&SECRET[6..], "from-outside", &"ab".repeat(32)] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // What is masked has to be filled in again.
        let filled = shown
            .replace("whsec_***", SECRET)
            .replace("sha256:abababab..", &format!("sha256:{}", "ab".repeat(32)))
            .replace("sha256:acacacac..", &format!("sha256:{}", "ac".repeat(32)))
            .replace("?***", "?token=1");
        let again = read(&filled).unwrap_or_else(|errors| panic!("{errors}\n{filled}"));
        assert_eq!(effective(&again), shown);
    }
}

#[test]
fn broken_files_are_told_each_fault_with_its_place() {
    let directory = root().join("tests/broken-configs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut broken, mut different) = (0, String::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml")) {
        broken += 1;
        let name = file.file_name().unwrap().to_str().unwrap();
        let errors = match parse(&std::fs::read_to_string(file).unwrap(), name, &env) {
            Ok(_) => panic!("{name} is accepted"),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = file.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &errors).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != errors {
            let _ = write!(different, "{name} is told:\n{errors}\n");
        }
    }
    assert!(broken >= 10, "{broken}");
    assert!(different.is_empty(), "{different}");
}

#[test]
fn ten_faults_are_told_at_once_and_in_file_order() {
    let text = include_str!("broken-configs/ten-at-once.toml");
    let errors = parse(text, "ten-at-once.toml", &env).unwrap_err();
    let places: Vec<_> = errors.faults().iter().map(|located| located.place.unwrap()).collect();
    assert_eq!(places.len(), 10, "{errors}");
    assert!(places.is_sorted(), "{errors}");
}

#[test]
fn what_is_too_many_is_told() {
    let mut trunks = String::new();
    for index in 0..65 {
        let _ = write!(trunks, "[[trunk]]\nname = \"t{index}\"\npeers = [\"192.0.2.{index}\"]\ncountry = \"SA\"\n");
    }
    let errors = read(&format!("{trunks}{}", section("number"))).unwrap_err().to_string();
    assert!(errors.contains("65 [[trunk]] are too many; at most 64"), "{errors}");

    let networks: Vec<String> = (0..4097).map(|n| format!("\"10.{}.{}.0/24\"", n / 256, n % 256)).collect();
    let peers = SHIPPED.replace("\"127.0.0.0/8\"", &networks.join(", "));
    let errors = read(&peers).unwrap_err().to_string();
    assert!(errors.contains("4098 peers are too many; at most 4096") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn what_only_a_restart_changes_is_told_all_at_once_with_its_place() {
    let running = read(SHIPPED).unwrap();
    let changed = SHIPPED
        .replace("data_dir = \"ringproof-data\"", "data_dir = \"elsewhere\"")
        .replace("[\"udp://127.0.0.1:5060\", \"tcp://127.0.0.1:5060\"]", "[\"udp://127.0.0.1:5061\"]")
        .replace("# tcp = { connections = 16384,", "tcp = { connections = 16383,")
        .replace("# workers       = 0", "workers       = 77")
        .replace("# recent_calls  = 1048576", "recent_calls  = 2048")
        .replace("127.0.0.1:8080", "127.0.0.1:8081")
        .replace("# connections             = 16384", "connections             = 32")
        .replace("# connections_per_address = 1024 ", "connections_per_address = 0 ")
        .replace("127.0.0.1:9090", "127.0.0.1:9091");
    let errors = reparse(&changed, "config.toml", &env, &running).unwrap_err();
    let shown = errors.to_string();
    let line = |text: &str| changed.lines().position(|line| line.contains(text)).unwrap() + 1;
    for (key, was, changed) in [
        ("node.data_dir", "\"ringproof-data\"", "\"elsewhere\""),
        ("sip.listen", "[\"udp://127.0.0.1:5060\", \"tcp://127.0.0.1:5060\"]", "127.0.0.1:5061"),
        ("sip.tcp", "{ connections = 16384", "= 16383"),
        ("sip.workers", &running.sip.workers.to_string(), "= 77"),
        ("sip.recent_calls", "1048576", "= 2048"),
        ("api.listen", "\"127.0.0.1:8080\"", "8081"),
        ("api.connections", "16384", "= 32"),
        ("api.connections_per_address", "1024", "connections_per_address = 0"),
        ("admin.listen", "\"127.0.0.1:9090\"", "9091"),
    ] {
        let told = shown.lines().find(|told| told.contains(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
        let begin = format!("config.toml:{}:", line(changed));
        assert!(told.starts_with(&begin) && told.contains(&format!("`{key}` was {was}")), "{told}");
    }
    assert_eq!(errors.faults().len(), 9, "{shown}");
    // Other faults are told beside them.
    let broken = changed.replace("country = \"SA\"", "country = \"XX\"");
    assert_eq!(reparse(&broken, "config.toml", &env, &running).unwrap_err().faults().len(), 10);
    // A key that is taken out is a change as well, and is told at its section.
    let without = SHIPPED.replace("listen = \"127.0.0.1:8080\"", "# listen = \"127.0.0.1:8080\"");
    let other = read(&SHIPPED.replace(":8080", ":8085")).unwrap();
    let errors = reparse(&without, "config.toml", &env, &other).unwrap_err().to_string();
    assert!(errors.contains("`api.listen` was \"127.0.0.1:8085\"") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn what_a_reload_changes_is_no_fault() {
    let running = read(&full()).unwrap();
    let changed = full()
        .replace("drain_seconds = 0", "drain_seconds = 7")
        .replace("name = \"edge_2\"", "name = \"edge-3\"")
        .replace("192.0.2.0/24", "198.51.100.0/24")
        .replace("ttl_seconds = 300", "ttl_seconds = 60")
        .replace("\"udp://0.0.0.0:5060\", \"udp://[::]:5060\"", "\"udp://[::]:5060\", \"udp://0.0.0.0:5060\"")
        .replace("\"36h\"", "\"3d\"")
        .replace("env:ADMIN_TOKEN", "another");
    let next = reparse(&changed, "config.toml", &env, &running).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((next.sip.drain, next.retention.events), (Duration::from_secs(7), Duration::from_hours(72)));
    assert_eq!(next.verify.applications[1].ttl, Duration::from_mins(1));
}

#[test]
fn a_public_path_an_open_api_and_an_expired_key_are_warned_of() {
    let before = UNIX_EPOCH + Duration::from_secs(1_801_357_199);
    assert!(warnings(&read(SHIPPED).unwrap(), before).is_empty());
    let configuration = read(&full()).unwrap();
    let [path, api] = &warnings(&configuration, before)[..] else { panic!("two warnings") };
    assert!(path.contains("`carrier-a`"), "{path}");
    assert!(api.contains("without TLS"), "{api}");
    let later = warnings(&configuration, before + Duration::from_secs(1));
    assert!(
        later.iter().any(|line| line.contains("key acacacac of application `shop` expired at 2027-01-31T01:00:00Z"))
    );
}

#[test]
fn certificate_and_key_are_read_beside_the_file_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let pair = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (mine, other) = (pair("verify.example"), pair("other.example"));
    write("cert.pem", &mine.cert.pem());
    write("key.pem", &mine.signing_key.serialize_pem());
    write("other.pem", &other.signing_key.serialize_pem());
    write("other-cert.pem", &other.cert.pem());
    write("empty.pem", "\n");
    let file = directory.path().join("config.toml").to_str().unwrap().to_owned();
    let with =
        |tls: &str| SHIPPED.replace("listen = \"127.0.0.1:8080\"", &format!("listen = \"0.0.0.0:8080\"\ntls = {tls}"));
    let told = |tls: &str| parse(&with(tls), &file, &env).map_err(|errors| errors.to_string());
    let configuration = told(r#"{ cert = "cert.pem", key = "key.pem" }"#).unwrap();
    let end = configuration.api.tls.as_ref().unwrap().identity.expires();
    assert!(warnings(&configuration, UNIX_EPOCH).is_empty(), "with TLS it may listen everywhere");
    let renewed = reparse(&with(r#"{ cert = "other-cert.pem", key = "other.pem" }"#), &file, &env, &configuration);
    assert!(renewed.is_ok(), "another certificate is taken by a reload: {renewed:?}");
    let plain = reparse(SHIPPED, &file, &env, &configuration).unwrap_err().to_string();
    assert!(plain.contains("`api.tls` was there when"), "{plain}");
    let [expired] = &warnings(&configuration, end)[..] else { panic!("one warning") };
    assert!(expired.contains("certificate in `cert.pem` expired"), "{expired}");
    assert!(effective(&configuration).contains("tls = { cert = \"cert.pem\", key = \"key.pem\" }"));
    for (tls, place, fault) in [
        (r#"{ cert = "none.pem", key = "key.pem" }"#, "\"none", "`none.pem` cannot be read: entity not found"),
        (r#"{ cert = "empty.pem", key = "key.pem" }"#, "\"empty", "`empty.pem` cannot be read: empty"),
        (r#"{ cert = "key.pem", key = "key.pem" }"#, "\"key", "`key.pem` holds no certificate"),
        (r#"{ cert = "cert.pem", key = "cert.pem" }"#, "\"cert.pem\" }", "`cert.pem` holds no private key"),
        (r#"{ cert = "cert.pem", key = "other.pem" }"#, "\"other", "does not fit the first certificate"),
        (r#"{ cert = "cert.pem" }"#, "{", "`key` is missing in `tls` of [api]"),
        (r#""cert.pem""#, "\"", "must be a table"),
    ] {
        let errors = told(tls).unwrap_err();
        let column = "tls = ".len() + tls.find(place).unwrap() + 1;
        assert!(errors.contains(&format!(":{column}: ")) && errors.contains(fault), "{tls}\n{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_without_a_line() {
    let errors = load(Path::new("no-such-file.toml")).unwrap_err();
    assert!(errors.to_string().starts_with("no-such-file.toml: cannot be read: "), "{errors}");
}

#[test]
fn secrets_and_keys_are_in_no_fault() {
    let keys = ["rp_live_verysecret", "sha256:verysecret", "verysecret"];
    let secrets = ["whsec_verysecret", "verysecret", "whsec_dmVyeXNlY3JldA=="];
    for (key, secret) in keys.into_iter().zip(secrets) {
        let text = SHIPPED.replace("# keys = []", &format!("keys = [\"{key}\"]"))
            + &format!(
                "\n[[application.webhook]]\nurl = \"https://u:verysecret@h.example/\"\nsecrets = [\"{secret}\"]"
            );
        let errors = read(&text).unwrap_err();
        assert!(errors.faults().len() == 3, "{errors}");
        for part in ["verysecret", "dmVyeXNlY3JldA"] {
            assert!(!errors.to_string().contains(part) && !format!("{errors:?}").contains(part), "{errors:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}|[\\[\\]{}=\",.#a-z0-9\\n ]{0,200}") {
        check_total(&text);
    }

    #[test]
    fn any_change_of_the_shipped_file_is_read_or_refused(
        changes in prop::collection::vec((0usize..12_000, 0usize..60, "[\\[\\]{}=\",.#a-z0-9/:\\n \u{e9}-]{0,6}"), 1..6),
        full_file: bool,
    ) {
        let mut text = if full_file { full() } else { SHIPPED.to_owned() };
        for (at, length, new) in changes {
            let start = floor(&text, at % (text.len() + 1));
            let end = floor(&text, (start + length).min(text.len())).max(start);
            text.replace_range(start..end, &new);
        }
        check_total(&text);
    }

    #[test]
    fn any_line_may_be_moved_or_doubled(from in 0usize..200, to in 0usize..200, keep: bool) {
        let full = full();
        let mut lines: Vec<&str> = full.lines().collect();
        let from = from % lines.len();
        let line = if keep { lines[from] } else { lines.remove(from) };
        let to = to % (lines.len() + 1);
        lines.insert(to, line);
        check_total(&lines.join("\n"));
    }
}

/// Reading ends, every fault is one line, and what is accepted can be shown.
fn check_total(text: &str) {
    match read(text) {
        Ok(configuration) => assert!(!effective(&configuration).is_empty()),
        Err(errors) => {
            assert!(!errors.faults().is_empty());
            assert_eq!(errors.to_string().lines().count(), errors.faults().len(), "{errors}");
        }
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap()
}

fn read(text: &str) -> Result<Configuration, ConfigErrors> {
    parse(text, "config.toml", &env)
}

fn env(name: &str) -> Option<String> {
    match name {
        "WEBHOOK_SECRET" => Some(SECRET.to_owned()),
        "ADMIN_TOKEN" => Some("from-outside".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The line without its comment sign where a key stands behind it.
fn commented_key(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ")?;
    let (key, _) = rest.split_once('=')?;
    key.trim_end().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(rest)
}

/// Whether the line is of the commented webhook section, whose keys make sense together only.
fn in_webhook(index: usize) -> bool {
    let header = SHIPPED.lines().position(|line| line.starts_with("# [[application.webhook]]")).unwrap();
    let end = SHIPPED.lines().position(|line| line == "[api]").unwrap();
    (header..end).contains(&index)
}

/// The shipped file with the line at `index` replaced.
fn with_line(index: usize, new: &str) -> String {
    let lines = SHIPPED.lines().enumerate().map(|(place, line)| if place == index { new } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The shipped file from the section `[[name]]` on.
fn section(name: &str) -> &'static str {
    &SHIPPED[SHIPPED.find(&format!("[[{name}]]")).unwrap()..]
}

/// A file that uses what the shipped one leaves at its default.
fn full() -> String {
    let (key, limited) = ("ab".repeat(32), "ac".repeat(32));
    format!(
        r#"[node]
name = "edge_2"
data_dir = "/var/lib/ringproof"
[sip]
listen = ["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060", "tcp://[::]:5061"]
tcp = {{ connections = 100, connections_per_peer = 10, idle_seconds = 5, message_seconds = 1 }}
workers = 3
recent_calls = 4096
drain_seconds = 0
[[trunk]]
name = "local"
peers = ["127.0.0.1"]
country = "GB"
reject = 480
did = {{ source = "to" }}
forwarded = "flag"
confirm = "ack"
mode = "reject"
limits = {{ calls_per_second = 500, peer_concurrent = 7 }}
[[trunk]]
name = "carrier-a"
peers = ["192.0.2.0/24", "2001:db8::/32", "192.0.2.128/25"]
country = "DE"
scope = "international"
path = "public"
reject = {{ code = 603, phrase = "No, thank you", q850 = 0 }}
[trunk.cli]
sources = ["from"]
asserted_trust = "on-net"
restricted = "refuse"
number_format = "e164_noplus"
verdict_headers = ["x-twilio-verstat", "verstat"]
bare_verdict = "B"
tech_prefix = "99#"
repair = ["plus_international", "plus_national"]
special_lines = "flag"
[[number]]
range = "+442079460000/1000"
trunks = ["local", "carrier-a"]
applications = ["demo"]
[[number]]
e164 = "+4930901820"
trunks = ["carrier-a"]
applications = ["shop"]
cool_down_seconds = 0
[[application]]
name = "demo"
[[application]]
name = "shop"
mode = "live"
keys = ["sha256:{key}", {{ hash = "sha256:{limited}", scopes = ["verifications:write", "calls:read"], expires = "2027-01-31T00:00:00-01:00", cidrs = ["10.0.0.0/8", "2001:db8::1"] }}]
ttl_seconds = 300
limits = {{ creates_per_phone = 0, creates_per_client_ip = "0", creates_per_second = 50, pending_per_phone = 1 }}
[[application.webhook]]
url = "https://shop.example/hook?token=1"
secrets = ["{SECRET}", "env:WEBHOOK_SECRET"]
events = ["verification.*", "call.*", "certificate.*", "fraud.*", "number.*", "delivery.*", "endpoint.disabled"]
[[application.webhook]]
url = "http://10.0.0.1:9100/hook"
secrets = ["env:WEBHOOK_SECRET"]
events = ["verification.late_call", "verification.verified"]
allow_private = true
[api]
listen = "0.0.0.0:8080"
public_url = "https://verify.example:8443/"
trusted_proxies = ["127.0.0.1"]
connections = 50000
connections_per_address = 0
[admin]
listen = "0.0.0.0:9090"
token = "env:ADMIN_TOKEN"
[store]
engine = "embedded"
max_pending = 100000000
[retention]
verifications = "36h"
"#
    )
}
