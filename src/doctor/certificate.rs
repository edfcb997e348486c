//! Certificates: how long they last, and whether the key is theirs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateFiles, Finding};

const CHECK: &str = "certificate";

/// From here on a certificate wants to be renewed.
const SOON: Duration = Duration::from_hours(21 * 24);

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// How long a certificate lasts. The text is its last day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expiry {
    Good(String),
    /// Less than 21 days.
    Soon(String),
    Over(String),
    /// It begins later; the text is its first day.
    NotYet(String),
    Unreadable,
}

/// Judges a certificate in DER by its dates (RFC 5280 4.1.2.5).
pub(super) fn expiry(der: &[u8], now: SystemTime) -> Expiry {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Expiry::Unreadable };
    let validity = certificate.validity();
    let (first, last) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let soon = i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX);
    if now > last {
        Expiry::Over(day(last))
    } else if now < first {
        Expiry::NotYet(day(first))
    } else if last - now < soon {
        Expiry::Soon(day(last))
    } else {
        Expiry::Good(day(last))
    }
}

/// The day of a time in seconds since 1970.
fn day(seconds: i64) -> String {
    // What no calendar of ours holds is told as its end.
    let seconds = u64::try_from(seconds).unwrap_or(0).min(253_402_300_799);
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

pub(super) fn check(files: &CertificateFiles, now: SystemTime) -> Vec<Finding> {
    let read = |path: &std::path::Path| {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map(|_| bytes)
            .map_err(|error| Finding::fail(CHECK, files.name, format!("{}: {error}", path.display())))
    };
    match (read(&files.certificate), read(&files.key)) {
        (Ok(certificate), Ok(key)) => judge_files(files.name, &certificate, &key, now),
        (certificate, key) => [certificate.err(), key.err()].into_iter().flatten().collect(),
    }
}

/// Judges a certificate chain and its private key, both PEM (RFC 7468): the dates of each certificate, and whether the
/// key is that of the first. `name` says whose they are.
#[must_use]
pub fn judge_files(name: &str, certificate: &[u8], key: &[u8], now: SystemTime) -> Vec<Finding> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return vec![no_pem(name, "the certificate file holds no certificate", "-----BEGIN CERTIFICATE-----")],
        Err(_) => return vec![no_pem(name, "the certificate file is no PEM", "-----BEGIN CERTIFICATE-----")],
    };
    let mut findings: Vec<Finding> =
        chain.iter().enumerate().map(|(place, one)| judge_dates(name, place, expiry(one, now))).collect();
    let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
        findings.push(no_pem(name, "the key file holds no private key", "-----BEGIN PRIVATE KEY-----"));
        return findings;
    };
    // Also where the certificate is broken: its fault is told above.
    findings.push(match CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()) {
        Ok(_) => Finding::ok(CHECK, name, "the key is that of the certificate"),
        Err(rustls::Error::InconsistentKeys(_)) => Finding::fail(CHECK, name, "the key is not that of the certificate")
            .advise("name the key that the certificate was requested with"),
        Err(error) => Finding::fail(CHECK, name, error.to_string()),
    });
    findings
}

fn no_pem(name: &str, found: &str, begins: &str) -> Finding {
    Finding::fail(CHECK, name, found).advise(format!("a file that begins {begins}"))
}

fn judge_dates(name: &str, place: usize, expiry: Expiry) -> Finding {
    let subject = if place == 0 { name.to_owned() } else { format!("{name}, {place} above") };
    match expiry {
        Expiry::Good(until) => Finding::ok(CHECK, subject, format!("until {until}")),
        Expiry::Soon(until) => {
            Finding::warn(CHECK, subject, format!("until {until}, less than 21 days")).advise("renew it, then reload")
        }
        Expiry::Over(until) => {
            Finding::fail(CHECK, subject, format!("expired on {until}")).advise("renew it, then reload")
        }
        Expiry::NotYet(from) => Finding::fail(CHECK, subject, format!("not valid before {from}"))
            .advise("look at the clock, or wait for its first day"),
        Expiry::Unreadable => Finding::fail(CHECK, subject, "is no X.509 certificate"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::doctor::Level;

    /// A certificate from 2026-01-01 to 2026-04-01, and its key.
    fn made() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["verify.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn at(day: &str) -> SystemTime {
        humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).unwrap()
    }

    fn levels(certificate: &str, key: &str, day: &str) -> Vec<(Level, String)> {
        let findings = judge_files("api", certificate.as_bytes(), key.as_bytes(), at(day));
        findings.into_iter().map(|finding| (finding.level, finding.found)).collect()
    }

    #[test]
    fn dates_are_judged_three_weeks_ahead() {
        let (certificate, key) = made();
        for (day, level, word) in [
            ("2025-12-31", Level::Fail, "not valid before 2026-01-01"),
            ("2026-03-10", Level::Ok, "until 2026-04-01"),
            ("2026-03-12", Level::Warn, "less than 21 days"),
            ("2026-04-02", Level::Fail, "expired on 2026-04-01"),
        ] {
            let found = levels(&certificate, &key, day);
            assert_eq!(found[0].0, level, "{day}: {}", found[0].1);
            assert!(found[0].1.contains(word), "{day}: {}", found[0].1);
            assert_eq!(found[1], (Level::Ok, "the key is that of the certificate".to_owned()));
        }
    }

    #[test]
    fn each_of_a_chain_is_judged() {
        let (first, key) = made();
        let (second, _) = made();
        let found = levels(&(first + &second), &key, "2026-02-01");
        assert_eq!(found.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Ok; 3]);
    }

    #[test]
    fn a_key_of_another_certificate_fails() {
        let (certificate, _) = made();
        let (_, other) = made();
        let found = levels(&certificate, &other, "2026-02-01");
        assert_eq!(found[1], (Level::Fail, "the key is not that of the certificate".to_owned()));
    }

    #[test]
    fn files_that_hold_something_else_fail() {
        let (certificate, key) = made();
        assert_eq!(levels("", &key, "2026-02-01")[0].0, Level::Fail);
        assert_eq!(levels(&certificate, "", "2026-02-01").last().unwrap().0, Level::Fail);
        assert_eq!(levels(&key, &certificate, "2026-02-01")[0].0, Level::Fail);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(levels(broken, &key, "2026-02-01").iter().all(|(level, _)| *level == Level::Fail));
        let absent = CertificateFiles { name: "api", certificate: "/no/cert".into(), key: "/no/key".into() };
        assert_eq!(check(&absent, at("2026-02-01")).len(), 2);
    }
}
