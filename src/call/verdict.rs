//! What a carrier's own check of the caller said: STIR/SHAKEN verdicts as they reach a trunk in header fields.
//!
//! Owns the reading of verdicts from the header fields that a trunk declares. Does not verify signatures: an Identity
//! header field is not looked into here. Invariant: what an undeclared field says never counts, for anybody can write
//! it; what a declared one says and cannot be read counts as nothing.

use super::trunk::Trunk;
use crate::sip::message::{HeaderName, Message};

/// A header field, or a parameter, in which a carrier tells what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum VerdictHeader {
    /// The `verstat` parameter of P-Asserted-Identity, else of From (3GPP TS 24.229).
    Verstat,
    /// `P-Attestation-Indicator`: a level.
    PAttestationIndicator,
    /// `Attestation-Info` (3GPP TS 24.229): a level.
    AttestationInfo,
    /// `X-Attestation-Info`: a level.
    XAttestationInfo,
    /// `X-Twilio-VerStat`: as `verstat`.
    XTwilioVerstat,
    /// `X-Plivo-Stir-Verification`: `Verified`, `Not Verified` or `Not Applicable`.
    XPlivoStirVerification,
}

impl VerdictHeader {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 6] = [
        Self::Verstat,
        Self::PAttestationIndicator,
        Self::AttestationInfo,
        Self::XAttestationInfo,
        Self::XTwilioVerstat,
        Self::XPlivoStirVerification,
    ];

    /// The name in the configuration and in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verstat => "verstat",
            Self::PAttestationIndicator => "p-attestation-indicator",
            Self::AttestationInfo => "attestation-info",
            Self::XAttestationInfo => "x-attestation-info",
            Self::XTwilioVerstat => "x-twilio-verstat",
            Self::XPlivoStirVerification => "x-plivo-stir-verification",
        }
    }

    const fn field(self) -> Option<HeaderName> {
        match self {
            Self::Verstat => None,
            Self::PAttestationIndicator => Some(HeaderName::PAttestationIndicator),
            Self::AttestationInfo => Some(HeaderName::AttestationInfo),
            Self::XAttestationInfo => Some(HeaderName::XAttestationInfo),
            Self::XTwilioVerstat => Some(HeaderName::XTwilioVerstat),
            Self::XPlivoStirVerification => Some(HeaderName::XPlivoStirVerification),
        }
    }
}

/// How far the originating operator vouches (RFC 8588 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestation {
    /// For the caller and the right to the number.
    A,
    /// For the caller.
    B,
    /// For the way that the call came.
    C,
}

impl Attestation {
    /// `"A"` to `"C"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        [Self::A, Self::B, Self::C].into_iter().find(|level| text.eq_ignore_ascii_case(level.as_str().as_bytes()))
    }
}

/// What the carrier found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Valid, with its level where one is told.
    Passed(Option<Attestation>),
    /// Checked and wrong.
    Failed,
    /// Not checked, or nothing to check: says nothing.
    Unchecked,
}

/// What all declared fields together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// The verdict and the field that told it.
    pub told: Option<(Verdict, VerdictHeader)>,
    /// An undeclared field told one as well.
    pub ignored: bool,
}

/// What one field says, or that it holds none of the words that it may have.
pub(super) type Told = Result<Verdict, Unreadable>;

/// Reads the verdicts of a call; `verstat` is the one in its addresses. Several are one only where they agree: a failed
/// one stands above all, and a call that is told to be unchecked gets no credit for the level in another field.
#[must_use]
pub(super) fn read(message: &Message<'_>, verstat: Option<Told>, trunk: &Trunk) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for header in VerdictHeader::ALL {
        let found = match header.field() {
            None => verstat,
            Some(field) => heaviest(message.values(field).map(|value| match header {
                VerdictHeader::XTwilioVerstat => passed_or_failed(value, trunk.bare_verdict),
                VerdictHeader::XPlivoStirVerification => plivo(value, trunk.bare_verdict),
                _ => level(value).map(|level| Verdict::Passed(Some(level))),
            })),
        };
        match found {
            Some(_) if !trunk.verdict_headers.contains(&header) => verdicts.ignored = true,
            None | Some(Err(Unreadable)) => {}
            Some(Ok(verdict)) => {
                let stronger = verdicts.told.is_none_or(|(told, _)| weight(verdict) > weight(told));
                if stronger {
                    verdicts.told = Some((verdict, header));
                }
            }
        }
    }
    verdicts
}

/// Failed before unchecked before passed; of several that passed the lowest level, for a caller's own field may stand
/// beside the carrier's.
const fn weight(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Failed => 5,
        Verdict::Unchecked => 4,
        Verdict::Passed(Some(Attestation::C)) => 3,
        Verdict::Passed(Some(Attestation::B)) => 2,
        Verdict::Passed(Some(Attestation::A)) => 1,
        Verdict::Passed(None) => 0,
    }
}

/// A value that is none of the words that a field may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The one of several values that counts; an unreadable one only where there is no other.
fn heaviest(values: impl Iterator<Item = Option<Verdict>>) -> Option<Told> {
    values.fold(None, |found, value| heavier(found, Some(value.ok_or(Unreadable))))
}

/// The one of two that counts.
pub(super) fn heavier(one: Option<Told>, other: Option<Told>) -> Option<Told> {
    match (one, other) {
        (Some(Ok(one)), Some(Ok(other))) => Some(Ok(if weight(other) > weight(one) { other } else { one })),
        (Some(one), Some(other)) => Some(one.or(other)),
        (one, other) => one.or(other),
    }
}

/// What a `verstat` parameter says.
pub(super) fn verstat(value: &[u8], bare: Option<Attestation>) -> Told {
    passed_or_failed(value, bare).ok_or(Unreadable)
}

/// `TN-Validation-Passed`, with a level behind it or without, `TN-Validation-Failed`, `No-TN-Validation`.
fn passed_or_failed(value: &[u8], bare: Option<Attestation>) -> Option<Verdict> {
    let value = plain(value);
    if value.eq_ignore_ascii_case(b"No-TN-Validation") {
        return Some(Verdict::Unchecked);
    }
    let (word, rest) = value.split_at_checked(b"TN-Validation-Passed".len())?;
    if word.eq_ignore_ascii_case(b"TN-Validation-Failed") {
        return Some(Verdict::Failed);
    }
    if !word.eq_ignore_ascii_case(b"TN-Validation-Passed") {
        return None;
    }
    match rest {
        [] => Some(Verdict::Passed(bare)),
        [b'-', level @ ..] => Attestation::parse(level).map(|level| Verdict::Passed(Some(level))),
        _ => None,
    }
}

fn plivo(value: &[u8], bare: Option<Attestation>) -> Option<Verdict> {
    let value = plain(value);
    let is = |word: &[u8]| value.eq_ignore_ascii_case(word);
    if is(b"Verified") {
        Some(Verdict::Passed(bare))
    } else {
        // Not verified are also calls with a lower level and unsigned ones: no proof, and no fault either.
        (is(b"Not Verified") || is(b"Not Applicable")).then_some(Verdict::Unchecked)
    }
}

/// A level by itself. Some carriers print it as `=A` or `A;`.
fn level(value: &[u8]) -> Option<Attestation> {
    Attestation::parse(plain(value))
}

fn plain(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"=").unwrap_or(value);
    let value = value.strip_suffix(b";").unwrap_or(value).trim_ascii();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verstat_words_are_read_and_others_are_not() {
        let read = |text: &str| passed_or_failed(text.as_bytes(), Some(Attestation::A));
        assert_eq!(read("TN-Validation-Passed"), Some(Verdict::Passed(Some(Attestation::A))));
        assert_eq!(read("tn-validation-passed-b"), Some(Verdict::Passed(Some(Attestation::B))));
        assert_eq!(read("TN-Validation-Failed-C"), Some(Verdict::Failed));
        assert_eq!(read("No-TN-Validation"), Some(Verdict::Unchecked));
        for other in ["", "Passed", "TN-Validation-Passed-D", "TN-Validation-PassedA", "TN-Validation-Unknown-"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn levels_are_read_as_carriers_print_them() {
        for text in ["A", "a", "=A", "A;", "=A;", " A ", "\"A\""] {
            assert_eq!(level(text.as_bytes()), Some(Attestation::A), "{text}");
        }
        assert_eq!(level(b"D"), None);
        assert_eq!(plivo(b"Not Verified", None), Some(Verdict::Unchecked));
        assert_eq!(plivo(b"verified", None), Some(Verdict::Passed(None)));
    }
}
