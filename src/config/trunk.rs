//! `[[trunk]]`: who may send calls, and how they are read and refused.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::errors::Span;
use super::fault::{Fault, Quoted};
use super::network::network;
use super::section::{Section, Shape, Word};
use super::{name, reject};
use crate::call::dialplan::{Dialplan, NumberFormat, Repair};
use crate::call::event::CallerSource;
use crate::call::profile::{self, PROFILES, Profile};
use crate::call::trunk::{Confirm, DidSource, Forwarded, Limits, Path, Restricted, Scope, SpecialLines, Trunk, Trust};
use crate::call::verdict::{Attestation, VerdictHeader};

/// Most trunks of a node.
const MAX_TRUNKS: usize = 64;
/// Most peers of all trunks.
const MAX_PEERS: usize = 4096;

const TRUNK: Shape = Shape {
    title: "[[trunk]]",
    keys: &[
        ("name", r#""carrier-a""#),
        ("peers", r#"["192.0.2.0/24"]"#),
        ("country", r#""SA""#),
        ("scope", r#""mixed""#),
        ("path", r#""private""#),
        ("confirm", r#""invite""#),
        ("reject", "486"),
        ("cli", r#"{ sources = ["pai", "from"] }"#),
        ("did", r#"{ source = "request-uri" }"#),
        ("forwarded", r#""refuse""#),
        ("mode", r#""reject""#),
        ("limits", "{ calls_per_second = 500, concurrent = 0 }"),
        ("allow_loopback", "false"),
        ("profile", r#""generic""#),
    ],
};
const CLI: Shape = Shape {
    title: "[trunk.cli]",
    keys: &[
        ("sources", r#"["pai", "from"]"#),
        ("asserted_trust", r#""none""#),
        ("restricted", r#""match_only""#),
        ("number_format", r#""auto""#),
        ("verdict_headers", r#"["verstat"]"#),
        ("bare_verdict", r#""none""#),
        ("tech_prefix", r#""1234#""#),
        ("repair", r#"["plus_national"]"#),
        ("special_lines", r#""refuse""#),
    ],
};
const DID: Shape = Shape { title: "[trunk.did]", keys: &[("source", r#""request-uri""#)] };
const LIMITS: Shape = Shape {
    title: "[trunk.limits]",
    keys: &[
        ("calls_per_second", "500"),
        ("concurrent", "1000"),
        ("peer_calls_per_second", "100"),
        ("peer_concurrent", "100"),
    ],
};
/// Longest tech prefix.
const MAX_TECH_PREFIX: usize = 16;

/// A trunk as far as it could be read.
pub(super) struct Draft<'c> {
    pub name: Option<Word<'c>>,
    /// Its header.
    pub span: Span,
    /// Its readable peers.
    pub peers: Vec<(IpNet, Span)>,
    /// Whether a live number may stand behind loopback peers.
    pub allow_loopback: Option<bool>,
    pub number_format: Option<NumberFormat>,
    /// Name of its profile.
    pub profile: &'static str,
    /// All of it, where nothing is wrong.
    pub trunk: Option<Trunk>,
}

impl Draft<'_> {
    /// The peer through which a program on this machine could call.
    pub(super) fn loopback_peer(&self) -> Option<IpNet> {
        let home = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        self.peers.iter().map(|(network, _)| *network).find(|network| match network {
            IpNet::V4(network) => network.contains(&home) || home.contains(network),
            IpNet::V6(network) => network.contains(&Ipv6Addr::LOCALHOST),
        })
    }
}

/// Reads all trunks; `None` where the list itself is unreadable.
pub(super) fn read<'c>(root: &Section<'c>) -> Option<Vec<Draft<'c>>> {
    let sections = root.tables("trunk", &TRUNK)?;
    if sections.is_empty() {
        root.tell(&root.span, Fault::NoSection { section: "[[trunk]]", meaning: "who may send calls" });
    } else if let Some(first) = sections.get(MAX_TRUNKS) {
        first.tell(&first.span, Fault::TooMany { what: "[[trunk]]", count: sections.len(), max: MAX_TRUNKS });
    }
    let drafts: Vec<Draft<'c>> = sections.iter().take(MAX_TRUNKS).map(trunk).collect();
    check_peers(root, &drafts);
    Some(drafts)
}

fn trunk<'c>(section: &Section<'c>) -> Draft<'c> {
    let name = name::required(section).filter(|word| {
        let free = word.text != Trunk::SANDBOX;
        if !free {
            section.tell(&word.span, Fault::ReservedName { name: Trunk::SANDBOX });
        }
        free
    });
    let peers = section.required("peers", section.some_words("peers")).map(|list| {
        let read: Vec<_> =
            list.words.iter().map(|word| network(section, word).map(|network| (network, word.span.clone()))).collect();
        (list.whole && read.iter().all(Option::is_some), read)
    });
    let cli = section.table("cli", &CLI);
    let profile = profile(section);
    let usual = profile.unwrap_or(&PROFILES[0]);
    let formats = [("auto", NumberFormat::Auto), ("e164_noplus", NumberFormat::E164NoPlus), ("nsn", NumberFormat::Nsn)];
    let number_format = cli.choice("number_format", &formats, &[]).or(usual.number_format);
    let country = section.text("country").and_then(|text, span| country(section, text, span));
    let country = section.required("country", country);

    let scope = section.choice(
        "scope",
        &[("national", Scope::National), ("international", Scope::International), ("mixed", Scope::Mixed)],
        &[],
    );
    let path = section.choice("path", &[("private", Path::Private), ("public", Path::Public)], &[]);
    let confirm = section.choice("confirm", &[("invite", Confirm::Invite), ("ack", Confirm::Ack)], &[]);
    let reject = reject::read(section);
    let sources = each_once(&cli, "sources", &CallerSource::ALL.map(|source| (source.as_str(), source)), usual.sources);
    let verdicts = VerdictHeader::ALL.map(|header| (header.as_str(), header));
    let verdict_headers = each_once(&cli, "verdict_headers", &verdicts, usual.verdict_headers);
    let repairs = each_once(&cli, "repair", &Repair::ALL.map(|repair| (repair.as_str(), repair)), &[]);
    let levels =
        [("none", None), ("A", Some(Attestation::A)), ("B", Some(Attestation::B)), ("C", Some(Attestation::C))];
    let bare_verdict = cli.choice("bare_verdict", &levels, &[]);
    let tech_prefix = cli.text("tech_prefix").and_then(|text, span| tech_prefix(&cli, text, span));
    let special_lines =
        cli.choice("special_lines", &[("refuse", SpecialLines::Refuse), ("flag", SpecialLines::Flag)], &[]);
    let trust = cli.choice(
        "asserted_trust",
        &[
            ("none", Trust::None),
            ("customer", Trust::Customer),
            ("operator", Trust::Operator),
            ("on-net", Trust::OnNet),
        ],
        &[],
    );
    let restricted =
        cli.choice("restricted", &[("match_only", Restricted::MatchOnly), ("refuse", Restricted::Refuse)], &[]);
    let did = section.table("did", &DID).choice(
        "source",
        &[
            ("request-uri", DidSource::RequestUri),
            ("to", DidSource::To),
            ("p-called-party-id", DidSource::PCalledPartyId),
        ],
        &[],
    );
    let forwarded = section.choice("forwarded", &[("refuse", Forwarded::Refuse), ("flag", Forwarded::Flag)], &[]);
    let mode = section.choice("mode", &[("reject", ())], &["ring", "announce"]);
    let limits = limits(&section.table("limits", &LIMITS));
    let allow_loopback = section.boolean("allow_loopback").or(false);

    let build = || {
        profile?;
        mode.or(())?;
        let dialplan = Dialplan::for_country(country?, number_format?).ok()?;
        Some(Trunk {
            name: name.as_ref()?.text.to_owned(),
            dialplan: dialplan.with_habits(tech_prefix.or("")?, repairs?),
            scope: scope.or(Scope::Mixed)?,
            path: path.or(usual.path)?,
            confirm: confirm.or(Confirm::Invite)?,
            reject: reject.or(reject::usual(usual.reject))?,
            sources: sources?,
            asserted_trust: trust.or(usual.asserted_trust)?,
            restricted: restricted.or(Restricted::MatchOnly)?,
            did: did.or(usual.did)?,
            forwarded: forwarded.or(Forwarded::Refuse)?,
            verdict_headers: verdict_headers?,
            bare_verdict: bare_verdict.or(usual.bare_verdict)?,
            special_lines: special_lines.or(SpecialLines::Refuse)?,
            limits: limits?,
        })
    };
    let trunk = build().filter(|_| peers.as_ref().is_some_and(|(whole, _)| *whole));
    let peers = peers.map_or_else(Vec::new, |(_, read)| read.into_iter().flatten().collect());
    let profile = profile.map_or("generic", |profile| profile.name);
    Draft { name, span: section.span.clone(), peers, allow_loopback, number_format, profile, trunk }
}

fn country<'c>(section: &Section<'c>, text: &'c str, span: &Span) -> Option<&'c str> {
    let known = |code: &str| {
        code.len() == 2
            && code.bytes().all(|byte| byte.is_ascii_uppercase())
            && Dialplan::for_country(code, NumberFormat::Auto).is_ok()
    };
    if known(text) {
        return Some(text);
    }
    let upper = text.trim().to_uppercase();
    let proposal = match upper.as_str() {
        "UK" => "GB",
        code if known(code) => code,
        _ => "SA",
    };
    section.tell(span, Fault::Country { text: Quoted::new(text), proposal: proposal.to_owned() });
    None
}

/// The habits that a trunk starts from.
fn profile(section: &Section<'_>) -> Option<&'static Profile> {
    let names = PROFILES.each_ref().map(|profile| (profile.name, profile.name));
    section.choice("profile", &names, &[]).or(PROFILES[0].name).and_then(profile::find)
}

/// A list in which no word stands twice, else `usual`.
fn each_once<T: Copy + PartialEq>(
    section: &Section<'_>,
    key: &'static str,
    words: &[(&'static str, T)],
    usual: &[T],
) -> Option<Vec<T>> {
    // Without a source nobody has a number; of everything else there may be none.
    let given = if key == "sources" { section.some_words(key) } else { section.words(key) };
    let entry = given.and_then(|list, _| {
        let mut whole = list.whole;
        let mut read = Vec::new();
        for word in &list.words {
            match section.pick(key, word, words, &[]) {
                Some(one) if read.contains(&one) => {
                    section.tell(&word.span, Fault::Repeated { key, word: Quoted::new(word.text) });
                    whole = false;
                }
                Some(one) => read.push(one),
                None => whole = false,
            }
        }
        whole.then_some(read)
    });
    entry.or(usual.to_vec())
}

fn tech_prefix<'c>(cli: &Section<'_>, text: &'c str, span: &Span) -> Option<&'c str> {
    let fits = text.len() <= MAX_TECH_PREFIX && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'#' | b'*'));
    if !fits {
        cli.tell(span, Fault::TechPrefix { text: Quoted::new(text), max: MAX_TECH_PREFIX });
    }
    fits.then_some(text)
}

fn limits(section: &Section<'_>) -> Option<Limits> {
    let cap = |key| section.integer(key, 0..=1_000_000).or(0);
    let (calls_per_second, concurrent) = (cap("calls_per_second"), cap("concurrent"));
    let (peer_calls_per_second, peer_concurrent) = (cap("peer_calls_per_second"), cap("peer_concurrent"));
    Some(Limits {
        calls_per_second: calls_per_second?,
        concurrent: concurrent?,
        peer_calls_per_second: peer_calls_per_second?,
        peer_concurrent: peer_concurrent?,
    })
}

/// Tells networks that belong to two trunks, or stand twice in one, and a total beyond the cap.
fn check_peers(root: &Section<'_>, drafts: &[Draft<'_>]) {
    let mut owners: HashMap<IpNet, (&Draft<'_>, &Span)> = HashMap::new();
    let all = drafts.iter().flat_map(|draft| draft.peers.iter().map(move |(network, span)| (draft, network, span)));
    let mut count = 0;
    for (draft, network, span) in all {
        count += 1;
        if let Some((owner, first)) = owners.get(network) {
            let trunk = owner.name.as_ref().map_or("?", |name| name.text).to_owned();
            root.tell(span, Fault::SamePeer { network: *network, trunk, line: root.line(first) });
        } else {
            owners.insert(*network, (draft, span));
        }
        if count == MAX_PEERS + 1 {
            let count = drafts.iter().map(|draft| draft.peers.len()).sum();
            root.tell(span, Fault::TooMany { what: "peers", count, max: MAX_PEERS });
        }
    }
}
