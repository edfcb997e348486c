//! What the INVITEs of each source show, counted.
//!
//! Owns the counts and their caps: what is beyond a cap is still counted, but not looked at one by one. A call counts
//! once, however often its INVITE was sent. Decides nothing: that is for `habits`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counts::Counts;
use super::messages::{self, DIALLED, Invite, Met};
use super::profile;
use super::written::{Written, shown};
use crate::call::event::CallerSource;
use crate::call::forwarding;
use crate::call::privacy;
use crate::call::verdict::VerdictHeader;
use crate::e164::E164;
use crate::sip::message::Uri;

/// Most sources that are told apart.
const MAX_SOURCES: usize = 1024;
/// Most calls, and most pings, whose retransmissions are known.
const MAX_KNOWN: usize = 1_000_000;
/// Most different callers of a source that are looked at.
const MAX_CALLERS: usize = 1024;
/// Most different dialled numbers of a source that are looked at.
const MAX_DIALLED: usize = 64;
/// Most different texts of a kind: user agents, prefixes, verdicts, listeners.
const MAX_TEXTS: usize = 16;
/// Most times between pings that are kept of a source.
const MAX_GAPS: usize = 256;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// What a capture showed.
#[derive(Default)]
pub(super) struct Observed {
    /// Who sent INVITEs.
    pub sources: BTreeMap<IpAddr, Evidence>,
    /// Who sent OPTIONS.
    pub pings: BTreeMap<IpAddr, Pings>,
    /// SIP messages.
    pub messages: u64,
    /// Calls.
    pub calls: u64,
    /// INVITEs of calls that had been seen.
    pub repeated: u64,
    /// Requests that could not be read.
    pub unreadable: u64,
    /// Requests of sources beyond the cap.
    pub beyond: u64,
    known: HashSet<(IpAddr, u64)>,
}

/// The pings of a source.
#[derive(Default)]
pub(super) struct Pings {
    pub count: u64,
    last: Option<Duration>,
    gaps: Vec<Duration>,
}

/// What the calls of a source, or of several, show.
#[derive(Default)]
pub(super) struct Evidence {
    pub calls: u64,
    /// Where they were sent to.
    pub listeners: Counts<(Transport, SocketAddr)>,
    /// In how many each header named a caller, in the order of [`CallerSource::ALL`].
    pub named: [u64; 5],
    /// In how many any did.
    pub named_any: u64,
    /// The callers, of the best header that named one.
    pub callers: Numbers,
    /// The dialled numbers, in the order of [`DIALLED`].
    pub dialled: [Numbers; 3],
    /// The verdicts on the caller, in the order of [`VerdictHeader::ALL`].
    pub verdicts: [Counts<String>; 6],
    /// Whose equipment each speaks for.
    pub profiles: Counts<&'static str>,
    pub agents: Counts<String>,
    /// Forwarded calls, by the header that tells.
    pub forwarded: Counts<&'static str>,
    /// Calls whose caller asks not to be shown.
    pub withheld: u64,
    /// Calls that the node would refuse by their form.
    pub refused: u64,
}

/// Numbers as written.
#[derive(Default)]
pub(super) struct Numbers {
    /// In how many calls there was one.
    pub calls: u64,
    /// With `+`, and E.164.
    pub whole: Counts<E164>,
    /// Digits without `+`.
    pub bare: Counts<String>,
    /// `+` before a national prefix, `+` before an international prefix.
    pub plus_national: u64,
    pub plus_international: u64,
    /// What stood before the number.
    pub prefixes: Counts<String>,
}

impl Observed {
    /// Takes one message in.
    pub(super) fn note(&mut self, met: Met<'_>, transport: Transport, from: SocketAddr, to: SocketAddr, at: Duration) {
        self.messages += u64::from(!matches!(met, Met::NotSip));
        match met {
            Met::Invite(invite) => {
                if !self.is_new(from.ip(), invite.call()) {
                    self.repeated += 1;
                } else if self.sources.len() < MAX_SOURCES || self.sources.contains_key(&from.ip()) {
                    self.calls += 1;
                    self.sources.entry(from.ip()).or_default().note(&invite, transport, to);
                } else {
                    self.beyond += 1;
                }
            }
            Met::Ping(request) => {
                if self.is_new(from.ip(), messages::transaction(&request))
                    && (self.pings.len() < MAX_SOURCES || self.pings.contains_key(&from.ip()))
                {
                    self.pings.entry(from.ip()).or_default().note(at);
                }
            }
            Met::Unreadable => self.unreadable += 1,
            Met::Other | Met::NotSip => {}
        }
    }

    fn is_new(&mut self, from: IpAddr, identity: u64) -> bool {
        if self.known.len() < MAX_KNOWN {
            self.known.insert((from, identity))
        } else {
            !self.known.contains(&(from, identity))
        }
    }
}

impl Pings {
    fn note(&mut self, at: Duration) {
        if let Some(gap) = self.last.and_then(|last| at.checked_sub(last)).filter(|gap| !gap.is_zero())
            && self.gaps.len() < MAX_GAPS
        {
            self.gaps.push(gap);
        }
        self.last = Some(at);
        self.count += 1;
    }

    /// The median of the times between them.
    pub(super) fn interval(&self) -> Option<Duration> {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }
}

impl Evidence {
    fn note(&mut self, invite: &Invite<'_>, transport: Transport, to: SocketAddr) {
        let message = &invite.request.message;
        self.calls += 1;
        self.listeners.add((transport, to), 1, MAX_TEXTS);
        let named = CallerSource::ALL.map(|source| invite.caller(source));
        for (count, written) in self.named.iter_mut().zip(&named) {
            *count += u64::from(written.is_some());
        }
        if let Some(written) = named.iter().flatten().next() {
            self.named_any += 1;
            self.callers.note(written, MAX_CALLERS);
        }
        for (numbers, place) in self.dialled.iter_mut().zip(DIALLED) {
            if let Some(written) = invite.dialled(place) {
                numbers.note(&written, MAX_DIALLED);
            }
        }
        for (counts, header) in self.verdicts.iter_mut().zip(VerdictHeader::ALL) {
            if let Some(text) = invite.verdict(header) {
                counts.add(shown(text), 1, MAX_TEXTS);
            }
        }
        self.profiles.add(profile::guess(invite), 1, MAX_TEXTS);
        if let Some(agent) = invite.fields.values("User-Agent").chain(invite.fields.values("Server")).next() {
            self.agents.add(shown(agent), 1, MAX_TEXTS);
        }
        if let Some(sign) = forwarding::sign(message, |_| false) {
            self.forwarded.add(sign.header(), 1, MAX_TEXTS);
        }
        let withheld =
            privacy::is_requested(message) || privacy::is_anonymous(Uri::parse(invite.request.from.uri).as_ref());
        self.withheld += u64::from(withheld);
        self.refused += u64::from(!invite.is_taken);
    }

    /// Adds what the calls of another source show.
    pub(super) fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.listeners.merge(other.listeners, MAX_TEXTS);
        for (count, more) in self.named.iter_mut().zip(other.named) {
            *count += more;
        }
        self.named_any += other.named_any;
        self.callers.merge(other.callers, MAX_CALLERS);
        for (numbers, more) in self.dialled.iter_mut().zip(other.dialled) {
            numbers.merge(more, MAX_DIALLED);
        }
        for (counts, more) in self.verdicts.iter_mut().zip(other.verdicts) {
            counts.merge(more, MAX_TEXTS);
        }
        self.profiles.merge(other.profiles, MAX_TEXTS);
        self.agents.merge(other.agents, MAX_TEXTS);
        self.forwarded.merge(other.forwarded, MAX_TEXTS);
        self.withheld += other.withheld;
        self.refused += other.refused;
    }
}

impl Numbers {
    /// How many different ones there are, as far as they are looked at.
    pub(super) fn different(&self) -> usize {
        self.whole.each.len() + self.bare.each.len()
    }

    fn note(&mut self, written: &Written, most: usize) {
        self.calls += 1;
        if !written.prefix.is_empty() {
            self.prefixes.add(written.prefix.clone(), 1, MAX_TEXTS);
        }
        if !written.plus {
            self.bare.add(written.digits.clone(), 1, most);
        } else if let Some(number) = written.number() {
            self.whole.add(number, 1, most);
        } else if written.digits.starts_with("00") {
            self.plus_international += 1;
        } else if written.digits.starts_with('0') {
            self.plus_national += 1;
        }
    }

    fn merge(&mut self, other: Self, most: usize) {
        self.calls += other.calls;
        self.whole.merge(other.whole, most);
        self.bare.merge(other.bare, most);
        self.plus_national += other.plus_national;
        self.plus_international += other.plus_international;
        self.prefixes.merge(other.prefixes, MAX_TEXTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Scanner;

    #[test]
    fn a_call_counts_once_however_often_it_is_sent() {
        let mut observed = Observed::default();
        for (text, from) in [
            (invite(1, 1, "+447700900123"), "192.0.2.1:5060"),
            (invite(1, 1, "+447700900123"), "192.0.2.1:5060"),
            (invite(1, 2, "+447700900123"), "192.0.2.1:5060"),
            (invite(2, 1, "07700900124"), "192.0.2.1:5060"),
            (invite(1, 1, "+447700900123"), "192.0.2.2:5060"),
            ("INVITE sip:a@b SIP/2.0\r\n\r\n".to_owned(), "192.0.2.3:5060"),
            ("noise".to_owned(), "192.0.2.4:5060"),
        ] {
            note(&mut observed, &text, from, 0);
        }
        assert_eq!((observed.calls, observed.repeated, observed.unreadable, observed.messages), (3, 2, 1, 6));
        let evidence = &observed.sources[&"192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!((evidence.calls, evidence.named), (2, [0, 0, 0, 2, 0]));
        assert_eq!((evidence.callers.whole.total, evidence.callers.bare.total), (1, 1));
        assert_eq!(evidence.dialled.each_ref().map(|numbers| numbers.calls), [2, 2, 0]);
    }

    #[test]
    fn the_median_tells_how_often_pings_come() {
        let mut observed = Observed::default();
        for (index, at) in [0, 30, 60, 200, 230].into_iter().enumerate() {
            let text = invite(index, 1, "+447700900123").replace("INVITE", "OPTIONS");
            note(&mut observed, &text, "192.0.2.1:5060", at);
            note(&mut observed, &text, "192.0.2.1:5060", at + 1);
        }
        let pings = &observed.pings[&"192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!((pings.count, pings.interval()), (5, Some(Duration::from_secs(30))));
    }

    fn note(observed: &mut Observed, text: &str, from: &str, at: u64) {
        let mut scanner = Scanner::default();
        let met = messages::read(&mut scanner, text.as_bytes());
        let to = "192.0.2.9:5060".parse().unwrap();
        observed.note(met, Transport::Udp, from.parse().unwrap(), to, Duration::from_secs(at));
    }

    fn invite(call_id: usize, number: u32, caller: &str) -> String {
        format!(
            "INVITE sip:+442079460200@gw SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
             From: <sip:{caller}@c>;tag=1\r\nTo: <sip:+442079460200@gw>\r\nCall-ID: {call_id}\r\n\
             CSeq: {number} INVITE\r\n\r\n"
        )
    }
}
