//! Checking a log: entry after entry, and against what was signed of it.
//!
//! The checker goes on behind a fault, so that it names every one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::chain::{Chain, Entry, hash};
use super::kind::Kind;

/// Most faults that are kept; the rest is counted.
const KEPT: usize = 1_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The text of the entry is not the one whose hash was kept.
    Changed(u64),
    /// The entry is another one than the one that its successor was written behind.
    Replaced(u64),
    /// What stands beside the text of the entry for look-ups is not what the text says.
    Relabeled(u64),
    /// Entries from the first to the second number are not there.
    Removed(u64, u64),
    /// At the place of the first number stands the entry with the second.
    Moved(u64, u64),
    /// The entry is not the one that a checkpoint signed.
    NotAsSigned(u64),
    /// A checkpoint was signed that is of another key, or was changed.
    Checkpoint(u64, String),
    /// The log begins behind entry 0, and nothing that was signed says that it may.
    NoBeginning(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(seq) => write!(f, "entry {seq} was changed: its hash does not fit its text"),
            Self::Replaced(seq) => {
                write!(f, "entry {seq} was replaced: the entry after it was written behind another one")
            }
            Self::Relabeled(seq) => {
                write!(f, "entry {seq} was changed: its time, kind or verification is not what its text says")
            }
            Self::Removed(first, last) if first == last => write!(f, "entry {first} was removed"),
            Self::Removed(first, last) => write!(f, "entries {first} to {last} were removed"),
            Self::Moved(place, seq) => write!(f, "entry {seq} was moved: it stands at the place of entry {place}"),
            Self::NotAsSigned(seq) => write!(f, "entry {seq} is not the one that a checkpoint signed"),
            Self::Checkpoint(seq, why) => write!(f, "the checkpoint of entry {seq} {why}"),
            Self::NoBeginning(seq) => {
                write!(f, "the log begins with entry {seq}, and no checkpoint signed entry {}", seq - 1)
            }
        }
    }
}

/// The `data` of `audit.purged`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Purged {
    /// The last entry that was removed.
    pub until: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The faults, in the order of the log.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub more: u64,
    /// Entries that were looked at.
    pub entries: u64,
    /// Checkpoints that fit.
    pub checkpoints: u64,
    /// The last entry.
    pub last: Chain,
}

/// A log while it is checked.
pub struct Checker<'a> {
    /// What was signed, by entry.
    signed: &'a [Chain],
    /// The next of them.
    next: usize,
    /// Up to here, and how it is: none at the beginning.
    before: Option<Chain>,
    first: Option<u64>,
    /// Up to where the log says that it was removed by age.
    purged: u64,
    findings: Findings,
}

impl<'a> Checker<'a> {
    /// Begins. `signed` is what checkpoints say, by entry; those that nobody signed are to be told with
    /// [`Checker::tell`].
    #[must_use]
    pub fn new(signed: &'a [Chain]) -> Self {
        Self { signed, next: 0, before: None, first: None, purged: 0, findings: Findings::default() }
    }

    /// Notes a fault that was found elsewhere.
    pub fn tell(&mut self, fault: Fault) {
        if self.findings.faults.len() < KEPT {
            self.findings.faults.push(fault);
        } else {
            self.findings.more += 1;
        }
    }

    /// Looks at the entry that stands at the place `seq`, with the hash that was kept with it. `agrees`: what stands
    /// beside its text says the same.
    pub fn entry(&mut self, seq: u64, text: &str, kept: &[u8], agrees: bool) {
        let actual = hash(text);
        self.first.get_or_insert(seq);
        let before = self.before.or_else(|| self.signed_before(seq));
        if let Some(before) = before.filter(|before| seq > before.seq.saturating_add(1)) {
            self.tell(Fault::Removed(before.seq.saturating_add(1), seq - 1));
        }
        let entry = Entry::parse(text);
        if actual.as_slice() != kept {
            self.tell(Fault::Changed(seq));
        } else if let Some(entry) = &entry
            && entry.seq != seq
        {
            self.tell(Fault::Moved(seq, entry.seq));
        } else if entry.is_none() {
            self.tell(Fault::Changed(seq));
        } else if !agrees {
            self.tell(Fault::Relabeled(seq));
        } else if let Some(before) = before.filter(|before| before.seq.checked_add(1) == Some(seq))
            && entry.as_ref().and_then(Entry::previous) != Some(before.hash)
        {
            self.tell(Fault::Replaced(before.seq));
        }
        // What the successor was written behind is the hash that was kept, unless that was changed too.
        let hash = kept.try_into().unwrap_or(actual);
        while let Some(signed) = self.signed.get(self.next).filter(|signed| signed.seq <= seq) {
            self.next += 1;
            if signed.seq == seq && signed.hash == hash {
                self.findings.checkpoints += 1;
            } else if signed.seq == seq {
                self.tell(Fault::NotAsSigned(seq));
            }
        }
        if let Some(purged) = entry.filter(|entry| entry.kind == Kind::AuditPurged.as_str()) {
            let until = serde_json::from_str::<Purged>(purged.data.get()).map_or(0, |purged| purged.until);
            self.purged = self.purged.max(until);
        }
        self.findings.entries += 1;
        self.before = Some(Chain { seq, hash });
    }

    /// What a log that begins with entry `seq` may begin behind. `None` where that is not known.
    fn signed_before(&self, seq: u64) -> Option<Chain> {
        let before = seq.saturating_sub(1);
        if before == 0 {
            Some(Chain::default())
        } else {
            self.signed.iter().find(|signed| signed.seq == before).copied()
        }
    }

    /// The end of the log.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        self.findings.last = self.before.unwrap_or_default();
        if let Some(first) = self.first.filter(|first| *first > 1) {
            if self.purged < first - 1 {
                self.tell(Fault::Removed(self.purged.saturating_add(1), first - 1));
            } else if self.signed_before(first).is_none() {
                self.tell(Fault::NoBeginning(first));
            }
        }
        let (last, signed) = (self.findings.last.seq, self.signed.last().map_or(0, |signed| signed.seq));
        if signed > last {
            self.tell(Fault::Removed(last.saturating_add(1), signed));
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::chain::Link;
    use super::*;

    fn log(count: u64) -> Vec<Link> {
        let mut chain = Chain::default();
        (0..count).map(|n| chain.append(UNIX_EPOCH, Kind::KeyUsed, &format!("{{\"n\":{n}}}"))).collect()
    }

    fn check(entries: &[(u64, &Link)], signed: &[Chain]) -> Vec<Fault> {
        let mut checker = Checker::new(signed);
        for (seq, link) in entries {
            checker.entry(*seq, &link.text, &link.hash, true);
        }
        checker.finish().faults
    }

    fn placed(links: &[Link]) -> Vec<(u64, &Link)> {
        links.iter().map(|link| (link.seq, link)).collect()
    }

    fn of(link: &Link) -> Chain {
        Chain { seq: link.seq, hash: link.hash }
    }

    #[test]
    fn a_whole_log_has_no_fault() {
        let links = log(9);
        assert_eq!(check(&placed(&links), &[of(&links[3]), of(&links[8])]), []);
        assert_eq!(check(&[], &[]), []);
        // Its beginning was removed by age, of which the log tells.
        let signed = [of(&links[3]), of(&links[8])];
        assert_eq!(check(&placed(&links[4..]), &signed), [Fault::Removed(1, 4)]);
        let mut chain = of(&links[8]);
        let told = chain.append(UNIX_EPOCH, Kind::AuditPurged, "{\"until\":4}");
        let rest: Vec<_> = links[4..].iter().chain([&told]).cloned().collect();
        assert_eq!(check(&placed(&rest), &signed), []);
        assert_eq!(check(&placed(&rest[1..]), &signed), [Fault::Removed(5, 5)]);
        // That it was removed by age is told, and what it went up to was signed by nobody.
        assert_eq!(check(&placed(&rest), &signed[1..]), [Fault::NoBeginning(5)]);
    }

    #[test]
    fn every_change_removal_and_move_is_named() {
        let links = log(9);
        for place in 0..9 {
            let seq = links[place].seq;
            let mut changed = links.clone();
            changed[place].text = changed[place].text.replace("\"n\":", "\"m\":");
            assert_eq!(check(&placed(&changed), &[]), [Fault::Changed(seq)]);
            // Also where the one who changed it has set its hash right: then its successor tells, or what was signed.
            changed[place].hash = hash(&changed[place].text);
            let signed = [of(&links[8])];
            let told = if place == 8 { Fault::NotAsSigned(9) } else { Fault::Replaced(seq) };
            assert_eq!(check(&placed(&changed), &signed), [told]);

            let mut left = placed(&links);
            left.remove(place);
            let told = Fault::Removed(seq, seq);
            assert_eq!(check(&left, &signed), [told], "{seq} removed");
        }
        let mut swapped = placed(&links);
        (swapped[2].1, swapped[5].1) = (&links[5], &links[2]);
        assert_eq!(check(&swapped, &[])[..2], [Fault::Moved(3, 6), Fault::Replaced(3)]);
        assert!(check(&swapped, &[]).contains(&Fault::Moved(6, 3)));
        assert_eq!(check(&placed(&links[..6]), &[of(&links[8])]), [Fault::Removed(7, 9)]);
        assert_eq!(check(&placed(&links[6..]), &[of(&links[3])]), [Fault::Removed(1, 6)]);
    }

    #[test]
    fn a_rewritten_log_is_not_the_one_that_was_signed() {
        let (links, mut chain) = (log(9), Chain::default());
        let other: Vec<Link> = (0..9).map(|_| chain.append(UNIX_EPOCH, Kind::KeyUsed, "{}")).collect();
        assert_eq!(check(&placed(&other), &[of(&links[3])]), [Fault::NotAsSigned(4)]);
    }
}
