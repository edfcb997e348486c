//! The proposal as text: TOML whose every key has its evidence behind it.
//!
//! Owns the wording. Numbers are masked, and texts of the capture stand in comments only, so that none of them can
//! become a setting.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::Reading;
use super::capture::{End, MAX_PACKETS};
use super::counts::Counts;
use super::evidence::{Evidence, Numbers, Observed, Transport};
use super::habits::{Group, Habits, dialled};
use super::layout::{COLUMN, comment, entry, quoted, share, share_of, words};
use super::messages::DIALLED;
use super::peers;
use super::profile::GENERIC;
use super::streams::MAX_HELD;
use super::written::masked;
use crate::call::dialplan::NumberFormat;
use crate::call::event::CallerSource;
use crate::call::trunk::{DidSource, Scope};
use crate::call::verdict::VerdictHeader;

/// Most trunks of a configuration.
const MAX_TRUNKS: usize = 64;
/// Fewest callers that show a scope.
const FEW_CALLERS: u64 = 30;
/// Most numbers that are shown for a key.
const EXAMPLES: usize = 3;

/// Writes what was read, and a section for each group.
pub(super) fn write(f: &mut Formatter<'_>, reading: &Reading, observed: &Observed, groups: &[Group]) -> fmt::Result {
    comment(
        f,
        "Proposed by `ringproof trunk learn`. A capture shows what a peer sends, not what it may be trusted with.",
    )?;
    comment(f, "Read each line, change the names and take the sections over into config.toml.")?;
    comment(f, "")?;
    read(f, reading, observed)?;
    let callers: BTreeSet<IpAddr> = groups.iter().flat_map(|group| group.sources.keys().copied()).collect();
    for (address, pings) in observed.pings.iter().filter(|(address, _)| !callers.contains(*address)).take(MAX_TRUNKS) {
        comment(f, &format!("no calls, but {} OPTIONS came from {address}", pings.count))?;
    }
    for (index, group) in groups.iter().take(MAX_TRUNKS).enumerate() {
        let others = callers.iter().copied().filter(|address| !group.sources.contains_key(address)).collect();
        writeln!(f)?;
        trunk(f, index + 1, group, &others, observed)?;
    }
    if groups.len() > MAX_TRUNKS {
        writeln!(f)?;
        comment(f, &format!("{} more groups of sources, with fewer calls, are left out", groups.len() - MAX_TRUNKS))?;
    }
    Ok(())
}

fn read(f: &mut Formatter<'_>, reading: &Reading, observed: &Observed) -> fmt::Result {
    let (packets, messages, calls) = (reading.packets, observed.messages, observed.calls);
    comment(f, &format!("read: {packets} packets, {messages} SIP messages, {calls} calls"))?;
    let end = match reading.end {
        End::Whole => String::new(),
        End::CutOff => "the capture ends in the middle of a packet".to_owned(),
        End::Damaged => format!("the capture is damaged behind packet {packets}; the rest was not read"),
        End::Limit => format!("only the first {MAX_PACKETS} packets were read"),
    };
    let refused = format!("TCP streams given up, for at most {} MiB may wait", MAX_HELD >> 20);
    let passed = [
        (reading.truncated, "packets cut short by the capture (tcpdump -s 0 takes them whole)"),
        (reading.unreadable, "packets not readable"),
        (reading.fragments, "fragments put together, or left over"),
        (reading.foreign, "packets neither UDP nor TCP"),
        (reading.streams.gaps, "gaps in TCP streams"),
        (reading.streams.broken, "TCP streams that went on with something else than SIP"),
        (reading.streams.refused, refused.as_str()),
        (observed.unreadable, "INVITE or OPTIONS requests not readable"),
        (observed.repeated, "INVITEs of calls that had been counted"),
        (observed.beyond, "calls of sources beyond the first that were told apart"),
    ];
    let passed = passed.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let passed = [end].into_iter().filter(|end| !end.is_empty()).chain(passed).collect::<Vec<_>>().join("; ");
    comment(f, &format!("passed over: {}", if passed.is_empty() { "nothing" } else { &passed }))
}

fn trunk(
    f: &mut Formatter<'_>,
    number: usize,
    group: &Group,
    others: &BTreeSet<IpAddr>,
    observed: &Observed,
) -> fmt::Result {
    let Group { evidence, habits, sources } = group;
    let calls = evidence.calls;
    let listeners =
        evidence.listeners.each.iter().map(|((transport, to), calls)| format!("{transport}://{to} ({calls})"));
    comment(f, &format!("{calls} calls came to {}", listeners.collect::<Vec<_>>().join(", ")))?;
    for (address, pings) in observed.pings.iter().filter(|(address, _)| sources.contains_key(*address)) {
        let every = pings.interval().map_or(String::new(), |gap| format!(", one every {:.0} s", gap.as_secs_f64()));
        comment(f, &format!("{address} pings: {} OPTIONS{every}", pings.count))?;
    }
    if evidence.refused > 0 {
        let refused = evidence.refused;
        comment(f, &format!("{refused} calls would be refused for their form; a Require header is the usual cause"))?;
    }
    writeln!(f, "[[trunk]]")?;
    entry(f, "name", &quoted(&format!("learned-{number}")), "a name of your own")?;
    peers_of(f, group, others)?;
    country(f, evidence, habits)?;
    scope(f, habits)?;
    path(f, group)?;
    profile(f, evidence, habits)?;
    did(f, evidence, habits)?;
    let forwarded = match evidence.forwarded.total {
        0 => "no forwarded call seen".to_owned(),
        count => format!("{} forwarded: {}", share(count, calls), listed(&evidence.forwarded)),
    };
    entry(f, "forwarded", &quoted("refuse"), &forwarded)?;
    writeln!(f, "\n[trunk.cli]")?;
    cli(f, evidence, habits)
}

fn peers_of(f: &mut Formatter<'_>, group: &Group, others: &BTreeSet<IpAddr>) -> fmt::Result {
    writeln!(f, "peers = [")?;
    let own = group.sources.keys().copied().collect();
    for peer in peers::of(&own, others) {
        let calls: u64 = peer.sources.iter().filter_map(|source| group.sources.get(source)).sum();
        let joined = match &peer.sources[..] {
            [_] => String::new(),
            [first, .., last] => format!(", {} neighbours, {first} to {last}", peer.sources.len()),
            [] => continue,
        };
        let network = format!("    \"{}/{}\",", peer.address, peer.length);
        writeln!(f, "{network:<COLUMN$}# {calls} calls{joined}")?;
    }
    writeln!(f, "]")
}

fn country(f: &mut Formatter<'_>, evidence: &Evidence, habits: &Habits) -> fmt::Result {
    let Some(found) = &habits.country else {
        return comment(
            f,
            "country = \"..\"  required, and not to be seen here: no country has half of the numbers in international \
             form; write the one by whose rules numbers without + are dialled",
        );
    };
    let remark = format!(
        "{} in international form{}",
        share_of(found.support, found.of, "numbers"),
        examples(&evidence.callers)
    );
    entry(f, "country", &quoted(&found.value), &remark)
}

fn scope(f: &mut Formatter<'_>, habits: &Habits) -> fmt::Result {
    let found = &habits.scope;
    let value = match found.value {
        Scope::National => "national",
        Scope::International => "international",
        Scope::Mixed => "mixed",
    };
    let few = if found.of < FEW_CALLERS { "; these are few, see more before national is relied on" } else { "" };
    let remark = match found.of {
        0 => "no caller whose country can be told".to_owned(),
        of => format!("{} are of the country{few}", share_of(found.support, of, "callers")),
    };
    entry(f, "scope", &quoted(value), &remark)
}

fn path(f: &mut Formatter<'_>, group: &Group) -> fmt::Result {
    let is_udp = group.evidence.listeners.each.keys().any(|(transport, _)| *transport == Transport::Udp);
    let (value, remark) = if group.sources.keys().all(|address| peers::is_private(*address)) {
        ("private", "every source has a private address; public where strangers can send from such a one too")
    } else if is_udp {
        ("public", "calls come over UDP from public addresses, which strangers can forge; private for a closed network")
    } else {
        ("private", "calls come over TCP, whose addresses cannot be forged from afar")
    };
    entry(f, "path", &quoted(value), remark)
}

fn profile(f: &mut Formatter<'_>, evidence: &Evidence, habits: &Habits) -> fmt::Result {
    let found = &habits.profile;
    let guess = if found.value == GENERIC {
        "no habit of a known peer".to_owned()
    } else {
        format!("{} show its habits", share_of(found.support, found.of, "calls"))
    };
    let agents = match evidence.agents.total {
        0 => "; no User-Agent".to_owned(),
        _ => format!("; User-Agent {}", listed(&evidence.agents)),
    };
    entry(f, "profile", &quoted(found.value), &(guess + &agents))
}

fn did(f: &mut Formatter<'_>, evidence: &Evidence, habits: &Habits) -> fmt::Result {
    let found = &habits.did;
    let held: Vec<String> = DIALLED
        .into_iter()
        .map(|place| {
            let numbers = dialled(evidence, place);
            format!("{} in {} ({} different)", did_header(place), numbers.calls, numbers.different())
        })
        .collect();
    let word = match found.value {
        DidSource::RequestUri => "request-uri",
        DidSource::To => "to",
        DidSource::PCalledPartyId => "p-called-party-id",
    };
    let remark = format!(
        "{}: a number in {}{}",
        share_of(found.support, found.of, "calls"),
        held.join(", "),
        examples(dialled(evidence, found.value))
    );
    entry(f, "did", &format!("{{ source = {} }}", quoted(word)), &remark)
}

fn cli(f: &mut Formatter<'_>, evidence: &Evidence, habits: &Habits) -> fmt::Result {
    let found = &habits.sources;
    let named = CallerSource::ALL.into_iter().zip(evidence.named).filter(|(_, calls)| *calls > 0);
    let named: Vec<String> = named.map(|(source, calls)| format!("{} in {calls}", source.header())).collect();
    let named = if named.is_empty() { "no header".to_owned() } else { named.join(", ") };
    let withheld = match evidence.withheld {
        0 => String::new(),
        count => format!("; {count} ask to be withheld"),
    };
    let remark = format!("{}: a number in {named}{withheld}", share_of(found.support, found.of, "calls"));
    entry(f, "sources", &words(found.value.iter().map(|source| source.as_str())), &remark)?;
    let remark = "a capture cannot show who stands behind an asserted number: ask the carrier before more is written";
    entry(f, "asserted_trust", &quoted("none"), remark)?;

    let found = &habits.format;
    let word = match found.value {
        NumberFormat::Auto => "auto",
        NumberFormat::E164NoPlus => "e164_noplus",
        NumberFormat::Nsn => "nsn",
    };
    let bare = &evidence.callers.bare;
    let remark = if bare.total == 0 {
        "no caller came without +".to_owned()
    } else {
        let such: Vec<String> = bare.each.keys().take(EXAMPLES).map(|text| masked(text)).collect();
        let read = share_of(found.support, found.of, "callers without +");
        format!("{read} can be read so, such as {}", such.join(", "))
    };
    entry(f, "number_format", &quoted(word), &remark)?;
    entry(f, "verdict_headers", "[]", &verdicts(evidence))?;
    entry(f, "bare_verdict", &quoted("none"), "only the carrier can say what a verdict without a level means")?;
    let found = &habits.prefix;
    let remark = match found.value.as_str() {
        "" => "no prefix before the numbers of half of the calls".to_owned(),
        prefix => format!("{} have {prefix} before the number", share_of(found.support, found.of, "calls")),
    };
    entry(f, "tech_prefix", &quoted(&found.value), &remark)?;
    let (national, international) = (evidence.callers.plus_national, evidence.callers.plus_international);
    let seen = [("plus_national", national), ("plus_international", international)];
    let remark = match national + international {
        0 => "no caller with + before a prefix".to_owned(),
        _ => format!("{national} callers have + before a national prefix, {international} before an international one"),
    };
    entry(f, "repair", &words(seen.into_iter().filter(|(_, count)| *count > 0).map(|(word, _)| word)), &remark)
}

/// A verdict that anybody may have written counts as much as the carrier's once its header is declared: none is.
fn verdicts(evidence: &Evidence) -> String {
    let seen = VerdictHeader::ALL.into_iter().zip(&evidence.verdicts).filter(|(_, counts)| counts.total > 0);
    let seen: Vec<String> = seen
        .map(|(header, counts)| format!("\"{}\" in {}: {}", header.as_str(), counts.total, listed(counts)))
        .collect();
    if seen.is_empty() {
        return "none seen".to_owned();
    }
    format!("seen {}; declare those that the carrier sets itself and removes from what it is sent", seen.join("; "))
}

const fn did_header(place: DidSource) -> &'static str {
    match place {
        DidSource::RequestUri => "Request-URI",
        DidSource::To => "To",
        DidSource::PCalledPartyId => "P-Called-Party-ID",
    }
}

/// Masked numbers, ready to stand behind a remark.
fn examples(numbers: &Numbers) -> String {
    let whole = numbers.whole.each.keys().map(|number| number.masked().to_string());
    let shown: Vec<String> = whole.chain(numbers.bare.each.keys().map(|text| masked(text))).take(EXAMPLES).collect();
    if shown.is_empty() { String::new() } else { format!(", such as {}", shown.join(", ")) }
}

fn listed<T: Display + Ord>(counts: &Counts<T>) -> String {
    let mut each: Vec<(&T, &u64)> = counts.each.iter().collect();
    each.sort_by_key(|(_, count)| Reverse(**count));
    let shown: Vec<String> = each.iter().take(EXAMPLES).map(|(what, count)| format!("{what} ({count})")).collect();
    shown.join(", ")
}
