//! `[[application]]`: a business that verifies its users, its keys and its limits.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::errors::Span;
use super::fault::{Fault, Quoted};
use super::network::network;
use super::section::{Either, Entry, Section, Shape, Word};
use super::{name, origin, webhook};
use crate::api::Key;
use crate::api::scope::{Scope, Scopes};
use crate::call::assurance::Assurance;
use crate::verify::settings::{Application, ApplicationId, Limits, Rate};
use crate::webhook::settings::Endpoint;

/// Most applications of a node.
const MAX_APPLICATIONS: usize = 1024;
/// Most keys of an application.
const MAX_KEYS: usize = 64;
/// Most networks of a key.
const MAX_CIDRS: usize = 64;
/// Largest count of a rate.
const MAX_RATE: u32 = 1_000_000;
/// Longest time of a rate.
const MAX_RATE_TIME: Duration = Duration::from_hours(30 * 24);

const APPLICATION: Shape = Shape {
    title: "[[application]]",
    keys: &[
        ("name", r#""shop""#),
        ("mode", r#""sandbox""#),
        ("keys", r#"["sha256:<64 hex digits>"]"#),
        ("ttl_seconds", "120"),
        ("minimum_assurance", r#""B""#),
        ("limits", r#"{ creates_per_phone = "5/10m" }"#),
        ("webhook", "[]"),
        ("allowed_origins", r#"["https://shop.example"]"#),
        ("return_urls", "[]"),
        ("frame_ancestors", "[]"),
    ],
};
const LIMITS: Shape = Shape {
    title: "[application.limits]",
    keys: &[
        ("creates_per_phone", r#""5/10m""#),
        ("creates_per_client_ip", r#""20/10m""#),
        ("creates_per_second", "0"),
        ("pending_per_phone", "3"),
    ],
};

/// A key that is more than a hash.
const KEY: Shape = Shape {
    title: "a table of `keys`",
    keys: &[
        ("hash", r#""sha256:<64 hex digits>""#),
        ("scopes", r#"["verifications:write"]"#),
        ("expires", r#""2027-01-31T00:00:00Z""#),
        ("cidrs", r#"["10.0.0.0/8"]"#),
    ],
};

/// SHA-256 of an API key's text.
type KeyHash = [u8; 32];

/// A key whose application has no place yet.
#[derive(Clone)]
pub(super) struct DraftKey {
    hash: KeyHash,
    /// Where the hash stands.
    span: Span,
    scopes: Scopes,
    expires: Option<SystemTime>,
    cidrs: Vec<IpNet>,
}

impl DraftKey {
    /// The key of the application at this place.
    pub(super) fn of(self, application: ApplicationId) -> Key {
        let Self { hash, span: _, scopes, expires, cidrs } = self;
        Key { scopes, expires, cidrs, ..Key::unrestricted(application, hash) }
    }
}

/// An application as far as it could be read.
pub(super) struct Draft<'c> {
    pub name: Option<Word<'c>>,
    /// Its header.
    pub span: Span,
    pub live: Option<bool>,
    /// Its readable keys.
    pub keys: Vec<DraftKey>,
    /// All of it, where nothing is wrong.
    pub application: Option<Application>,
    pub webhooks: Option<Vec<Endpoint>>,
    /// Pages that may follow its verifications.
    pub origins: Option<Vec<String>>,
}

/// Reads all applications; `None` where the list itself is unreadable.
pub(super) fn read<'c>(root: &Section<'c>) -> Option<Vec<Draft<'c>>> {
    let sections = root.tables("application", &APPLICATION)?;
    if sections.is_empty() {
        let meaning = "a business that verifies its users";
        root.tell(&root.span, Fault::NoSection { section: "[[application]]", meaning });
    } else if let Some(first) = sections.get(MAX_APPLICATIONS) {
        let count = sections.len();
        first.tell(&first.span, Fault::TooMany { what: "[[application]]", count, max: MAX_APPLICATIONS });
    }
    let drafts: Vec<Draft<'c>> = sections.iter().take(MAX_APPLICATIONS).map(application).collect();
    check_keys(root, &drafts);
    Some(drafts)
}

fn application<'c>(section: &Section<'c>) -> Draft<'c> {
    let name = name::required(section);
    let live = section.choice("mode", &[("sandbox", false), ("live", true)], &[]).or(false);
    let keys = keys(section);
    if live == Some(true) && (section.lacks("keys") || keys.as_ref().is_some_and(Vec::is_empty)) {
        section.tell(&section.span, Fault::LiveWithoutKey);
    }
    let ttl = section.integer("ttl_seconds", 60..=300).or(120);
    let minimum_assurance = section
        .choice("minimum_assurance", &[("A", Assurance::A), ("B", Assurance::B), ("C", Assurance::C)], &[])
        .or(if live == Some(true) { Assurance::B } else { Assurance::C });
    let limits = limits(&section.table("limits", &LIMITS));
    let webhooks = webhook::read(section, name.as_ref().map(|word| word.text), live);
    let origins = origin::read(section, live);
    for key in ["return_urls", "frame_ancestors"] {
        section.later(key);
    }
    let build = || {
        keys.as_ref()?;
        Some(Application {
            name: name.as_ref()?.text.to_owned(),
            live: live?,
            ttl: Duration::from_secs(ttl?.into()),
            minimum_assurance: minimum_assurance?,
            limits: limits?,
        })
    };
    let application = build();
    Draft { name, span: section.span.clone(), live, keys: keys.unwrap_or_default(), application, webhooks, origins }
}

fn keys(section: &Section<'_>) -> Option<Vec<DraftKey>> {
    let entry = section.elements("keys").and_then(|elements, span| {
        if elements.len() > MAX_KEYS {
            section.tell(span, Fault::TooMany { what: "keys", count: elements.len(), max: MAX_KEYS });
            return None;
        }
        let read: Vec<_> = elements
            .iter()
            .map(|element| {
                if let Some(table) = section.element_table(element, &KEY) {
                    return key(&table);
                }
                let Some(text) = element.get_ref().as_str() else {
                    section.wrong_element("keys", element);
                    return None;
                };
                let span = element.span();
                let hash = hash(section, text, &span)?;
                Some(DraftKey { hash, span, scopes: Scopes::ALL, expires: None, cidrs: Vec::new() })
            })
            .collect();
        // What is unreadable is told; the readable ones still have to differ.
        let whole = read.iter().all(Option::is_some);
        Some((whole, read.into_iter().flatten().collect::<Vec<_>>()))
    });
    let (whole, keys) = entry.or((true, Vec::new()))?;
    whole.then_some(keys)
}

fn key(section: &Section<'_>) -> Option<DraftKey> {
    let mut place = section.span.clone();
    let hash = section.text("hash").and_then(|text, span| {
        place = span.clone();
        hash(section, text, span)
    });
    let hash = section.required("hash", hash);
    let words = Scope::ALL.map(|scope| (scope.as_str(), scope));
    let scopes = section.some_words("scopes").and_then(|list, _| {
        let read: Vec<_> = list.words.iter().map(|word| section.pick("scopes", word, &words, &[])).collect();
        read.into_iter().collect::<Option<Scopes>>().filter(|_| list.whole)
    });
    let expires = section.text("expires").and_then(|text, span| {
        let time = text.parse::<Timestamp>().ok().map(SystemTime::from).filter(|time| *time >= UNIX_EPOCH);
        if time.is_none() {
            section.tell(span, Fault::Date { text: Quoted::new(text) });
        }
        time.map(Some)
    });
    let cidrs = section.some_words("cidrs").and_then(|list, span| {
        if list.words.len() > MAX_CIDRS {
            section.tell(span, Fault::TooMany { what: "cidrs", count: list.words.len(), max: MAX_CIDRS });
            return None;
        }
        let read: Vec<_> = list.words.iter().map(|word| network(section, word)).collect();
        read.into_iter().collect::<Option<Vec<_>>>().filter(|_| list.whole)
    });
    let (scopes, expires, cidrs) = (scopes.or(Scopes::ALL), expires.or(None), cidrs.or(Vec::new()));
    Some(DraftKey { hash: hash?, span: place, scopes: scopes?, expires: expires?, cidrs: cidrs? })
}

fn hash(section: &Section<'_>, text: &str, span: &Span) -> Option<KeyHash> {
    let hash = section.secrets().resolve(text).and_then(|text| parse_hash(text.expose_secret()));
    hash.map_err(|fault| section.tell(span, fault)).ok()
}

fn parse_hash(text: &str) -> Result<KeyHash, Fault> {
    if text.starts_with("rp_") {
        return Err(Fault::KeyItself);
    }
    let digits = text.strip_prefix("sha256:").ok_or(Fault::KeyHash)?.as_bytes();
    let mut hash = KeyHash::default();
    if digits.len() != 2 * hash.len() {
        return Err(Fault::KeyHash);
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = value(pair[0]).zip(value(pair[1])).ok_or(Fault::KeyHash)?;
        *byte = high << 4 | low;
    }
    Ok(hash)
}

fn check_keys(root: &Section<'_>, drafts: &[Draft<'_>]) {
    let mut owners: HashMap<KeyHash, (&Draft<'_>, &Span)> = HashMap::new();
    for draft in drafts {
        for DraftKey { hash, span, .. } in &draft.keys {
            if let Some((owner, first)) = owners.get(hash) {
                let application = owner.name.as_ref().map_or("?", |name| name.text).to_owned();
                root.tell(span, Fault::SameKey { application, line: root.line(first) });
            } else {
                owners.insert(*hash, (draft, span));
            }
        }
    }
}

fn limits(section: &Section<'_>) -> Option<Limits> {
    let phone = rate(section, "creates_per_phone");
    let client = rate(section, "creates_per_client_ip");
    let second = section.integer("creates_per_second", 0..=MAX_RATE).or(0);
    let pending = section.integer("pending_per_phone", 1..=100).or(3);
    let ten_minutes = Duration::from_mins(10);
    Some(Limits {
        creates_per_phone: phone.or(Some(Rate { count: 5, per: ten_minutes }))?,
        creates_per_client_ip: client.or(Some(Rate { count: 20, per: ten_minutes }))?,
        creates_per_second: second.map(|count| (count > 0).then_some(count))?,
        pending_per_phone: pending?,
    })
}

/// A count and a time; `Read(None)` is no limit.
fn rate(section: &Section<'_>, key: &'static str) -> Entry<Option<Rate>> {
    section.integer_or_text(key, 0..=u32::MAX).and_then(|value, span| {
        let rate = match value {
            Either::Integer(0) => Some(None),
            Either::Integer(_) => None,
            Either::Text(text) => parse_rate(text),
        };
        if rate.is_none() {
            let text = match value {
                Either::Integer(number) => Quoted::new(number.to_string()),
                Either::Text(text) => Quoted::new(text),
            };
            section.tell(span, Fault::Rate { key, text });
        }
        rate
    })
}

/// `Some(None)` for `"0"`, `None` for what is no rate.
#[allow(clippy::option_option, reason = "no limit and no rate are two things")]
fn parse_rate(text: &str) -> Option<Option<Rate>> {
    if text == "0" {
        return Some(None);
    }
    let (count, per) = text.split_once('/')?;
    let count = count.parse().ok().filter(|count| (1..=MAX_RATE).contains(count))?;
    let per = humantime::parse_duration(per).ok()?;
    (Duration::from_secs(1)..=MAX_RATE_TIME).contains(&per).then_some(Some(Rate { count, per }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_count_and_a_time() {
        let rate = |count, seconds| Some(Some(Rate { count, per: Duration::from_secs(seconds) }));
        assert_eq!(parse_rate("5/10m"), rate(5, 600));
        assert_eq!(parse_rate("1/1h 30m"), rate(1, 5400));
        assert_eq!(parse_rate("0"), Some(None));
        for bad in ["", "5", "5/", "/10m", "0/10m", "5/0s", "5/10", "-1/10m", "5/1ms", "5/10years"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_hash() {
        assert_eq!(parse_hash(&format!("sha256:{}", "aF".repeat(32))), Ok([0xaf; 32]));
        for bad in ["", "sha256:", &"a".repeat(64), &format!("sha256:{}", "g".repeat(64)), "sha256:\u{e9}\u{e9}"] {
            assert_eq!(parse_hash(bad), Err(Fault::KeyHash), "{bad}");
        }
        assert_eq!(parse_hash("rp_live_abc"), Err(Fault::KeyItself));
    }
}
