//! The file as a whole: its sections in order, and the configuration that comes of them.

use std::path::PathBuf;
use std::time::Duration;

use super::errors::Span;
use super::fault::{Fault, Quoted};
use super::section::{Entry, Section, Shape, Word};
use super::{
    AllowedOrigin, Configuration, TrunkExtras, application, effective, listener, name, number, reference, trunk,
};
use crate::call::dialplan::NumberFormat;
use crate::call::event::TrunkId;
use crate::call::trunk::Trunk;
use crate::store::Retention;
use crate::verify::settings::{ApplicationId, MAX_PENDING, Numbers, Settings};

/// Longest `data_dir` in bytes, below what systems allow for a path with a file's name behind it.
const MAX_PATH: usize = 3072;
/// Largest `max_pending`: some 40 GB of memory.
const MOST_PENDING: u32 = 100_000_000;
/// Shortest and longest retention.
const RETENTION: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(3650 * 24));

pub(super) const ROOT: Shape = Shape {
    title: "the file",
    keys: &[
        ("node", "{}"),
        ("sip", "{}"),
        ("trunk", "[]"),
        ("number", "[]"),
        ("application", "[]"),
        ("api", "{}"),
        ("admin", "{}"),
        ("store", "{}"),
        ("retention", "{}"),
    ],
};
const NODE: Shape = Shape { title: "[node]", keys: &[("name", r#""edge-1""#), ("data_dir", r#""ringproof-data""#)] };
const STORE: Shape = Shape { title: "[store]", keys: &[("engine", r#""embedded""#), ("max_pending", "5000000")] };
const RETENTION_SHAPE: Shape = Shape {
    title: "[retention]",
    keys: &[("verifications", r#""30d""#), ("calls", r#""30d""#), ("events", r#""30d""#), ("audit", r#""400d""#)],
};

/// Reads everything. `None` exactly where a fault was told.
pub(super) fn read(root: &Section<'_>) -> Option<Configuration> {
    let node = root.table("node", &NODE);
    let node_name = node.text("name").and_then(|text, span| name::check(&node, Word { text, span: span.clone() }));
    let data_dir = node.text("data_dir").and_then(|text, span| data_dir(&node, text, span));
    let listeners = listener::read(root);
    let trunks = trunk::read(root);
    let numbers = number::read(root);
    let applications = application::read(root);
    let ranges = reference::connect(root, trunks.as_deref(), numbers.as_deref(), applications.as_deref());
    let store = root.table("store", &STORE);
    let engine = store.choice("engine", &[("embedded", ())], &["redis"]);
    let max_pending = store.integer("max_pending", 1..=MOST_PENDING).and_then(|count, _| Some(u64::from(count)));
    let retention = retention(&root.table("retention", &RETENTION_SHAPE));

    let place = data_dir.place(&node.span);
    let data_dir = data_dir.or(PathBuf::from("ringproof-data"));
    if let Some(data_dir) = &data_dir {
        node.stays(&place, "node.data_dir", data_dir, |running| {
            (running.data_dir.clone(), effective::text(&running.data_dir.to_string_lossy()))
        });
    }

    engine.or(())?;
    let (listeners, trunks, applications) = (listeners?, trunks?, applications?);
    let mut configuration = Configuration {
        node_name: node_name.or(Word { text: "edge-1", span: 0..0 })?.text.to_owned(),
        data_dir: data_dir?,
        sip: listeners.sip,
        trunks: Vec::new(),
        peers: Vec::new(),
        verify: Settings {
            numbers: Numbers::new(ranges?),
            max_pending: max_pending.or(MAX_PENDING)?,
            ..Settings::default()
        },
        keys: Vec::new(),
        origins: Vec::new(),
        webhooks: Vec::new(),
        api_listen: listeners.api_listen,
        api: listeners.api,
        admin_listen: listeners.admin,
        admin_token: listeners.admin_token,
        retention: retention?,
        sha256: [0; 32],
        trunk_extras: Vec::new(),
    };
    for (draft, place) in trunks.into_iter().zip(0..) {
        let trunk = draft.trunk?;
        configuration.peers.extend(draft.peers.into_iter().map(|(network, _)| (network, TrunkId(place))));
        let (number_format, allow_loopback) = (draft.number_format?, draft.allow_loopback?);
        configuration.trunk_extras.push(TrunkExtras { number_format, allow_loopback, profile: draft.profile });
        configuration.verify.trunks.push(trunk.name.clone());
        configuration.trunks.push(trunk);
    }
    if let Some(first) = configuration.trunks.first()
        && applications.iter().any(|draft| draft.live == Some(false))
    {
        // Each test call brings a dialplan of its own.
        let built_in = Trunk::sandbox(first.dialplan.clone());
        // Nobody sets these for it, but places are shared by all lists of trunks.
        let extras = TrunkExtras { number_format: NumberFormat::Auto, allow_loopback: false, profile: "generic" };
        configuration.trunk_extras.push(extras);
        configuration.verify.trunks.push(built_in.name.clone());
        configuration.trunks.push(built_in);
    }
    for (draft, place) in applications.into_iter().zip(0..) {
        configuration.verify.applications.push(draft.application?);
        configuration.webhooks.extend(draft.webhooks?);
        let application = ApplicationId(place);
        let origins = draft.origins?.into_iter().map(|text| AllowedOrigin { application, text });
        configuration.origins.extend(origins);
        configuration.keys.extend(draft.keys.into_iter().map(|key| key.of(application)));
    }
    Some(configuration)
}

fn data_dir(node: &Section<'_>, text: &str, span: &Span) -> Option<PathBuf> {
    if text.is_empty() || text.len() > MAX_PATH || text.contains('\0') {
        node.tell(span, Fault::DataDir { max: MAX_PATH });
        return None;
    }
    Some(PathBuf::from(text))
}

fn retention(section: &Section<'_>) -> Option<Retention> {
    let verifications = age(section, "verifications").or(Duration::from_hours(30 * 24));
    let calls = age(section, "calls");
    let events = age(section, "events");
    let audit = age(section, "audit").or(Duration::from_hours(400 * 24));
    let verifications = verifications?;
    let retention =
        Retention { verifications, calls: calls.or(verifications)?, events: events.or(verifications)?, audit: audit? };
    Some(retention)
}

fn age(section: &Section<'_>, key: &'static str) -> Entry<Duration> {
    section.text(key).and_then(|text, span| {
        let Ok(time) = humantime::parse_duration(text) else {
            section.tell(span, Fault::Time { key, text: Quoted::new(text) });
            return None;
        };
        let (shortest, longest) = RETENTION;
        if time < shortest || time > longest {
            let value = Quoted::new(format!("\"{text}\""));
            section.tell(span, Fault::OutOfRange { key, value, low: "1h".into(), high: "3650d".into() });
            return None;
        }
        Some(time)
    })
}
