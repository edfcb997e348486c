//! What is known of the habits of common peers: the defaults that a trunk's `profile` sets.
//!
//! Owns the table and nothing else; whatever the operator writes beside `profile` stands above it. What a profile has
//! beyond `generic` is what the peer's maker or the provider itself has published, and `docs/trunks/` says where.
//!
//! Invariant: no profile vouches for a caller. Who may set P-Asserted-Identity is settled by a contract, which a name
//! in a configuration file does not know of, so [`Trust::None`] stands in all of them. Verdict header fields are
//! declared only where the provider says that it writes them itself.

use super::dialplan::NumberFormat;
use super::event::CallerSource;
use super::trunk::{DidSource, Path, Trust};
use super::verdict::{Attestation, VerdictHeader};

/// The known habits of one kind of peer: the defaults of a trunk's keys.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// The word in the configuration, and the name of the page in `docs/trunks/`.
    pub name: &'static str,
    /// `cli.sources`: which headers name the caller, best first.
    pub sources: &'static [CallerSource],
    /// `cli.asserted_trust`: who stands behind an asserted number.
    pub asserted_trust: Trust,
    /// `cli.number_format`: what digits without `+` are.
    pub number_format: NumberFormat,
    /// `cli.verdict_headers`: where the peer tells what its own check of the caller found.
    pub verdict_headers: &'static [VerdictHeader],
    /// `cli.bare_verdict`: the level of a passed check that names none.
    pub bare_verdict: Option<Attestation>,
    /// `did.source`: where the dialled number stands.
    pub did: DidSource,
    /// `path`: whether a stranger can send packets with this peer's address.
    pub path: Path,
    /// `reject`: status code of the final response to every call.
    pub reject: u16,
    /// How often the peer pings with OPTIONS, as far as known; for documentation.
    pub ping: &'static str,
}

const GENERIC: Profile = Profile {
    name: "generic",
    sources: &[CallerSource::Pai, CallerSource::From],
    asserted_trust: Trust::None,
    number_format: NumberFormat::Auto,
    verdict_headers: &[],
    bare_verdict: None,
    did: DidSource::RequestUri,
    path: Path::Private,
    reject: 486,
    ping: "not known",
};

/// All profiles. The first one is that of a trunk that names none.
pub const PROFILES: [Profile; 10] = [
    GENERIC,
    Profile {
        name: "cisco-cube",
        // Translates between From, Remote-Party-ID and P-Asserted-Identity as it is set, so any can come (Cisco,
        // "Support for PAID PPID Privacy PCPID and PAURI Headers").
        sources: &[CallerSource::Pai, CallerSource::Rpid, CallerSource::From],
        ping: "off; as set with options-keepalive",
        ..GENERIC
    },
    Profile {
        name: "audiocodes",
        // P-Asserted-Identity passes as it came by default (Mediant user's manual, IP Profiles).
        ping: "off; 60 s with Proxy Keep-Alive by OPTIONS",
        ..GENERIC
    },
    Profile { name: "ribbon", ping: "off; 1 to 600 s with a Path Check Profile", ..GENERIC },
    Profile { name: "oracle", ping: "off; as set with ping-method and ping-interval", ..GENERIC },
    Profile {
        name: "twilio",
        // X-Twilio-VerStat always carries the level: TN-Validation-Passed-A, -B, -C (Twilio, "Trusted Calling with
        // SHAKEN/STIR").
        verdict_headers: &[VerdictHeader::XTwilioVerstat],
        path: Path::Public,
        ..GENERIC
    },
    Profile {
        name: "telnyx",
        // `verstat` in P-Asserted-Identity; without a suffix it means level A, and B and C have one (Telnyx,
        // "STIR/SHAKEN SIP Header Parameters").
        verdict_headers: &[VerdictHeader::Verstat],
        bare_verdict: Some(Attestation::A),
        path: Path::Public,
        ..GENERIC
    },
    Profile {
        name: "bandwidth",
        // `verstat` never carries a level; P-Attestation-Indicator beside it does (Bandwidth, "STIR/SHAKEN Inbound
        // Verification").
        verdict_headers: &[VerdictHeader::Verstat, VerdictHeader::PAttestationIndicator],
        path: Path::Public,
        ..GENERIC
    },
    // No published verdict header for inbound calls was found.
    Profile { name: "didww", path: Path::Public, ..GENERIC },
    Profile {
        name: "ims",
        // Asserted identity and Request-URI hold global numbers (3GPP TS 29.165 8.1). `verstat` is the terminating
        // network's own check (TS 24.229). Attestation-Info may be the originating network's word about itself,
        // so it waits for an agreement.
        verdict_headers: &[VerdictHeader::Verstat],
        ping: "by agreement",
        ..GENERIC
    },
];

/// The profile of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Profile> {
    let profiles: &'static [Profile] = &PROFILES;
    profiles.iter().find(|profile| profile.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn generic_is_first_and_names_are_unique() {
        assert_eq!(PROFILES[0].name, "generic");
        let names: HashSet<_> = PROFILES.iter().map(|profile| profile.name).collect();
        assert_eq!(names.len(), PROFILES.len());
    }

    #[test]
    fn a_profile_is_found_by_its_name_alone() {
        for profile in PROFILES {
            assert_eq!(find(profile.name).map(|found| found.name), Some(profile.name));
        }
        assert!(find("").is_none() && find("Generic").is_none());
    }

    #[test]
    fn every_profile_has_its_page_and_every_page_its_profile() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trunks");
        let pages = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages: HashSet<String> = pages.filter(|page| page != "README.md").collect();
        assert_eq!(pages, PROFILES.iter().map(|profile| format!("{}.md", profile.name)).collect());
    }

    #[test]
    fn no_profile_vouches_for_a_caller() {
        assert!(PROFILES.iter().all(|profile| profile.asserted_trust == Trust::None));
    }

    #[test]
    fn a_bare_verdict_comes_with_a_verdict_header() {
        assert!(PROFILES.iter().all(|profile| profile.bare_verdict.is_none() || !profile.verdict_headers.is_empty()));
    }
}
