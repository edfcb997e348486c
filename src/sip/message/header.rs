//! Names of the header fields that are read (RFC 3261 7.3.1: case-insensitive, some with a compact form 7.3.3).

/// A header field that the program reads. All others are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderName {
    /// 3GPP TS 24.229: how far the originating network vouches for the caller.
    AttestationInfo,
    /// RFC 3261 20.8, compact `i`.
    CallId,
    /// RFC 3261 20.14, compact `l`.
    ContentLength,
    /// RFC 3261 20.16.
    CSeq,
    /// RFC 5806.
    Diversion,
    /// RFC 3261 20.20, compact `f`.
    From,
    /// RFC 7044.
    HistoryInfo,
    /// RFC 8224 4, compact `y`.
    Identity,
    /// RFC 3325 9.1.
    PAssertedIdentity,
    /// How far the carrier vouches for the caller: a level of RFC 8588 4.
    PAttestationIndicator,
    /// RFC 7315 4.2.
    PCalledPartyId,
    /// RFC 3325 9.2.
    PPreferredIdentity,
    /// RFC 3323 4.2.
    Privacy,
    /// The older form of an asserted identity, from the drafts that led to RFC 3325.
    RemotePartyId,
    /// RFC 3261 20.32.
    Require,
    /// RFC 3261 20.39, compact `t`.
    To,
    /// RFC 3261 20.42, compact `v`.
    Via,
    /// [`HeaderName::AttestationInfo`] under a name of its own.
    XAttestationInfo,
    /// Plivo's verdict on the caller.
    XPlivoStirVerification,
    /// Twilio's verdict on the caller.
    XTwilioVerstat,
}

impl HeaderName {
    /// How many there are.
    pub(super) const COUNT: usize = Self::XTwilioVerstat as usize + 1;

    /// The header of this name, long or compact.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        // By length first: of the dozens of header fields in an INVITE most end here.
        let (wanted, header): (&[u8], Self) = match name.len() {
            1 => {
                return match name[0].to_ascii_lowercase() {
                    b'v' => Some(Self::Via),
                    b'f' => Some(Self::From),
                    b't' => Some(Self::To),
                    b'i' => Some(Self::CallId),
                    b'l' => Some(Self::ContentLength),
                    b'y' => Some(Self::Identity),
                    _ => None,
                };
            }
            2 => (b"To", Self::To),
            3 => (b"Via", Self::Via),
            4 if name[0].eq_ignore_ascii_case(&b'F') => (b"From", Self::From),
            4 => (b"CSeq", Self::CSeq),
            7 if name[0].eq_ignore_ascii_case(&b'C') => (b"Call-ID", Self::CallId),
            7 if name[0].eq_ignore_ascii_case(&b'R') => (b"Require", Self::Require),
            7 => (b"Privacy", Self::Privacy),
            8 => (b"Identity", Self::Identity),
            9 => (b"Diversion", Self::Diversion),
            12 => (b"History-Info", Self::HistoryInfo),
            14 => (b"Content-Length", Self::ContentLength),
            15 => (b"Remote-Party-ID", Self::RemotePartyId),
            16 if name[0].eq_ignore_ascii_case(&b'X') => (b"X-Twilio-VerStat", Self::XTwilioVerstat),
            16 => (b"Attestation-Info", Self::AttestationInfo),
            17 => (b"P-Called-Party-ID", Self::PCalledPartyId),
            18 => (b"X-Attestation-Info", Self::XAttestationInfo),
            19 => (b"P-Asserted-Identity", Self::PAssertedIdentity),
            20 => (b"P-Preferred-Identity", Self::PPreferredIdentity),
            23 => (b"P-Attestation-Indicator", Self::PAttestationIndicator),
            25 => (b"X-Plivo-Stir-Verification", Self::XPlivoStirVerification),
            _ => return None,
        };
        // Nearly all are written as their RFC writes them.
        (name == wanted || name.eq_ignore_ascii_case(wanted)).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_in_compact_form() {
        for (name, header) in [
            ("from", HeaderName::From),
            ("CSEQ", HeaderName::CSeq),
            ("v", HeaderName::Via),
            ("I", HeaderName::CallId),
            ("p-asserted-identity", HeaderName::PAssertedIdentity),
            ("PRIVACY", HeaderName::Privacy),
            ("Require", HeaderName::Require),
            ("y", HeaderName::Identity),
            ("remote-party-id", HeaderName::RemotePartyId),
            ("attestation-INFO", HeaderName::AttestationInfo),
            ("x-twilio-verstat", HeaderName::XTwilioVerstat),
        ] {
            assert_eq!(HeaderName::of(name.as_bytes()), Some(header), "{name}");
        }
        for name in ["", "x", "Frum", "Contact", "Subject", "Call-Id2"] {
            assert_eq!(HeaderName::of(name.as_bytes()), None, "{name}");
        }
    }
}
