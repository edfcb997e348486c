//! `[[application.webhook]]`: where an application's events go.

use std::collections::HashMap;

use hyper::Uri;
use secrecy::ExposeSecret;

use super::errors::Span;
use super::fault::{Fault, Quoted};
use super::nearest::nearest;
use super::section::{Section, Shape, Word};
use crate::outbox::delivery::EndpointId;
use crate::outbox::event::EventType;
use crate::webhook::address::special_range;
use crate::webhook::settings::Endpoint;
use crate::webhook::signing_key::SigningKey;

/// Most webhooks of an application.
const MAX_WEBHOOKS: usize = 16;
/// Most secrets of a webhook: one, and those it replaces.
const MAX_SECRETS: usize = 8;
/// Most events in one request.
const MAX_BATCH: u32 = 100;
/// Longest address in bytes.
const MAX_URL: usize = 2048;

const WEBHOOK: Shape = Shape {
    title: "[[application.webhook]]",
    keys: &[
        ("url", r#""https://shop.example/hook""#),
        ("secrets", r#"["env:WEBHOOK_SECRET"]"#),
        ("events", r#"["verification.*"]"#),
        ("allow_private", "false"),
        ("batch", "50"),
    ],
};

/// Types that later versions send.
const LATER_EVENTS: [&str; 6] = [
    "verification.fallback_started",
    "verification.fallback_delivered",
    "verification.fallback_failed",
    "trunk.up",
    "trunk.down",
    "trunk.quiet",
];
/// Families of which later versions send something.
const LATER_FAMILIES: [&str; 1] = ["trunk."];

/// Reads the webhooks of an application; `None` where a fault was told, or where the application's name or mode is
/// unknown for one.
pub(super) fn read(application: &Section<'_>, name: Option<&str>, live: Option<bool>) -> Option<Vec<Endpoint>> {
    let sections = application.tables("webhook", &WEBHOOK)?;
    if let Some(first) = sections.get(MAX_WEBHOOKS) {
        let count = sections.len();
        first.tell(&first.span, Fault::TooMany { what: "webhooks", count, max: MAX_WEBHOOKS });
    }
    let mut lines: HashMap<Uri, usize> = HashMap::new();
    let mut endpoints = Vec::new();
    for section in sections.iter().take(MAX_WEBHOOKS) {
        let mut place = section.span.clone();
        let allow_private = private_allowed(section, live);
        let url = section.text("url").and_then(|text, span| {
            place = span.clone();
            url(section, text, span, allow_private)
        });
        let url = section.required("url", url);
        if let Some(url) = &url {
            if let Some(first) = lines.get(url) {
                section.tell(&place, Fault::SameUrl { line: *first });
            } else {
                lines.insert(url.clone(), section.line(&place));
            }
        }
        let secrets = secrets(section);
        let events = events(section);
        let batch = section.integer("batch", 1..=MAX_BATCH).or(1);
        let build = || {
            let (name, url) = (name?, url?);
            Some(Endpoint {
                id: EndpointId::new(name, &url.to_string()),
                application: name.to_owned(),
                url,
                secrets: secrets?,
                events: events?,
                allow_private: allow_private?,
                batch: usize::try_from(batch?).ok()?,
            })
        };
        endpoints.push(build());
    }
    endpoints.into_iter().collect()
}

/// A sandbox may call its own machine unless told otherwise.
fn private_allowed(section: &Section<'_>, live: Option<bool>) -> Option<bool> {
    if section.lacks("allow_private") { live.map(|live| !live) } else { section.boolean("allow_private").or(false) }
}

fn url(section: &Section<'_>, text: &str, span: &Span, allow_private: Option<bool>) -> Option<Uri> {
    let parsed: Option<Uri> = (text.len() <= MAX_URL).then(|| text.parse().ok()).flatten();
    let told = |fault| {
        section.tell(span, fault);
        None
    };
    let usable = parsed.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && !text.contains('#'));
    let Some((uri, host)) = usable.and_then(|uri| uri.host().map(str::to_owned).map(|host| (uri, host))) else {
        return told(Fault::Url);
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return told(Fault::UrlUser);
    }
    if host.is_empty() || has_bad_port(&uri) {
        return told(Fault::Url);
    }
    // Where it is unknown what is allowed, that fault is told already.
    if allow_private == Some(false) {
        if is_private(&host) {
            return told(Fault::PrivateHost { host: Quoted::new(host) });
        }
        if uri.scheme_str() == Some("http") {
            return told(Fault::PlainHttp);
        }
    }
    Some(uri)
}

/// Whether a port is written that is none: `Uri` keeps such text.
pub(super) fn has_bad_port(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else { return true };
    let behind_host = authority.as_str().rsplit(']').next().unwrap_or_default();
    behind_host.contains(':') && authority.port_u16().is_none_or(|port| port == 0)
}

/// Whether `host` is this machine by name, or an address that is not on the public internet (RFC 6890). Names that
/// lead to such addresses are found at each attempt.
fn is_private(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    name.parse().is_ok_and(|address| special_range(address).is_some())
}

fn secrets(section: &Section<'_>) -> Option<Vec<SigningKey>> {
    let list = section.required("secrets", section.some_words("secrets"))?;
    if let Some(first) = list.words.get(MAX_SECRETS) {
        let count = list.words.len();
        section.tell(&first.span, Fault::TooMany { what: "secrets", count, max: MAX_SECRETS });
        return None;
    }
    let secret = |word: &Word<'_>| {
        let decoded = section
            .secrets()
            .resolve(word.text)
            .and_then(|text| SigningKey::parse(text.expose_secret()).map_err(|fault| Fault::WebhookSecret { fault }));
        decoded.map_err(|fault| section.tell(&word.span, fault)).ok()
    };
    let read: Vec<_> = list.words.iter().map(secret).collect();
    read.into_iter().collect::<Option<Vec<_>>>().filter(|_| list.whole)
}

fn events(section: &Section<'_>) -> Option<Vec<EventType>> {
    let entry = section.some_words("events").and_then(|list, _| {
        let mut wanted = [false; EventType::ALL.len()];
        let mut whole = list.whole;
        for word in &list.words {
            let matched = matching(word.text);
            whole &= matched.iter().any(|matches| *matches);
            if !matched.contains(&true) {
                section.tell(&word.span, event_fault(word.text));
            }
            wanted.iter_mut().zip(matched).for_each(|(wanted, matches)| *wanted |= matches);
        }
        let chosen = EventType::ALL.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(event, _)| event);
        whole.then(|| chosen.collect())
    });
    entry.or(EventType::ALL.into_iter().filter(|event| event.is_terminal()).collect())
}

/// Which of the types a pattern means: `*`, a family such as `verification.*`, or one type.
fn matching(pattern: &str) -> [bool; EventType::ALL.len()] {
    EventType::ALL.map(|event| match pattern.strip_suffix('*') {
        Some("") => true,
        Some(family) => family.ends_with('.') && event.as_str().starts_with(family),
        None => event.as_str() == pattern,
    })
}

fn event_fault(text: &str) -> Fault {
    let later = LATER_EVENTS.contains(&text)
        || LATER_FAMILIES.iter().any(|family| text.strip_prefix(family).is_some_and(|rest| rest == "*"));
    if later {
        return Fault::NotInThisVersion { what: Quoted::new(text).to_string(), instead: "remove it".to_owned() };
    }
    let words: Vec<&'static str> =
        ["*", "verification.*", "call.*", "certificate.*", "fraud.*", "number.*", "delivery.*", "endpoint.*"]
            .into_iter()
            .chain(EventType::ALL.map(EventType::as_str))
            .collect();
    // A type without its family is the usual slip.
    let bare = words.iter().copied().find(|word| word.strip_prefix("verification.") == Some(text));
    let nearest = bare.or_else(|| nearest(text, words.iter().copied().filter(|word| *word != "*")));
    Fault::UnknownWord { key: "events", word: Quoted::new(text), nearest, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_hosts_are_known_in_all_their_forms() {
        for host in [
            "localhost",
            "a.localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(is_private(host), "{host}");
        }
        for host in ["shop.example", "198.52.100.7", "[2a00::1]", "172.32.0.1", "localhost.example"] {
            assert!(!is_private(host), "{host}");
        }
    }

    #[test]
    fn patterns_name_the_types_they_cover() {
        let count = |pattern| matching(pattern).into_iter().filter(|matches| *matches).count();
        assert_eq!(count("*"), EventType::ALL.len());
        assert_eq!(count("verification.*"), EventType::ALL.len() - 9);
        assert_eq!((count("delivery.*"), count("endpoint.*")), (1, 1));
        assert_eq!(count("verification.verified"), 1);
        assert_eq!(count("verification*"), 0);
        assert_eq!((count("call.*"), count("fraud.*"), count("trunk.*")), (3, 2, 0));
    }
}
