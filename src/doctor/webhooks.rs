//! Webhook endpoints: whether they can be reached as deliveries reach them. Nothing is sent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::certificate::{Expiry, expiry};
use super::{Clocks, Finding, Webhook};
use crate::webhook::attempt::{AttemptError, Tls};
use crate::webhook::probe::{Reached, reach};

const CHECK: &str = "webhook";

/// Longest time for reading whom this machine trusts, for one endpoint, and for all of them.
const AUTHORITIES: Duration = Duration::from_secs(5);
const ONE: Duration = Duration::from_secs(12);
const ALL: Duration = Duration::from_secs(20);

/// Endpoints that are connected to at once.
const AT_ONCE: usize = 64;

pub(super) async fn check(webhooks: Vec<Webhook>, clocks: Clocks) -> Vec<Finding> {
    if webhooks.is_empty() {
        return Vec::new();
    }
    // Reading the authorities' certificates takes the disk.
    let Ok(Ok(tls)) = timeout(AUTHORITIES, tokio::task::spawn_blocking(Tls::native)).await else {
        return vec![Finding::fail(CHECK, "", "the certificate authorities of this machine cannot be read")];
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut found: Vec<Option<Finding>> = webhooks.iter().map(|_| None).collect();
    let subjects: Vec<String> = webhooks.iter().map(subject).collect();
    let mut tasks = JoinSet::new();
    for (place, webhook) in webhooks.into_iter().enumerate() {
        let (tls, places) = (tls.clone(), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let began = (clocks.instant)();
            let reached = timeout(ONE, reach(&webhook.url, webhook.allow_private, &tls)).await;
            let reached = reached.unwrap_or(Err(AttemptError::Timeout));
            let took = (clocks.instant)().duration_since(began);
            (place, judge(&webhook, reached, took, (clocks.utc)()))
        });
    }
    let gather = async {
        while let Some(done) = tasks.join_next().await {
            if let Ok((place, finding)) = done {
                found[place] = Some(finding);
            }
        }
    };
    // Whoever is not done by then is told as such below.
    let _ = timeout(ALL, gather).await;
    let unfinished = |subject: String| Finding::fail(CHECK, subject, format!("no end within {} s", ALL.as_secs()));
    found.into_iter().zip(subjects).map(|(finding, subject)| finding.unwrap_or_else(|| unfinished(subject))).collect()
}

/// Application, scheme, host and port: the rest of an address may hold a secret.
fn subject(webhook: &Webhook) -> String {
    let url = &webhook.url;
    let port = url.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let scheme = url.scheme_str().unwrap_or_default();
    format!("{} {scheme}://{}{port}", webhook.application, url.host().unwrap_or_default())
}

fn judge(webhook: &Webhook, reached: Result<Reached, AttemptError>, took: Duration, now: SystemTime) -> Finding {
    let subject = subject(webhook);
    let reached = match reached {
        Ok(reached) => reached,
        Err(error) => {
            let advice = advice(&error);
            return Finding::fail(CHECK, subject, error.to_string()).advise(advice);
        }
    };
    let address = reached.address.map_or_else(String::new, |address| format!(" {address}"));
    let secrets = match webhook.secrets {
        1 => "1 secret".to_owned(),
        count => format!("{count} secrets"),
    };
    let found = format!("connects{address} in {} ms, {secrets}", took.as_millis());
    match reached.certificate.map(|certificate| expiry(&certificate, now)) {
        None => Finding::ok(CHECK, subject, format!("{found}; nothing was sent")),
        Some(Expiry::Good(until)) => {
            Finding::ok(CHECK, subject, format!("{found}, certificate until {until}; nothing was sent"))
        }
        Some(Expiry::Soon(until) | Expiry::Over(until) | Expiry::NotYet(until)) => {
            Finding::warn(CHECK, subject, format!("{found}, certificate until {until}; nothing was sent"))
                .advise("tell its owner: an expired certificate stops deliveries")
        }
        Some(Expiry::Unreadable) => {
            Finding::ok(CHECK, subject, format!("{found}, certificate not readable here; nothing was sent"))
        }
    }
}

const fn advice(error: &AttemptError) -> &'static str {
    match error {
        AttemptError::PlainHttp => "write https://, or allow_private = true",
        AttemptError::Refused { .. } => {
            "its name leads to an address that is not public: allow_private = true if it should"
        }
        AttemptError::Resolve(_) => "the name server or the host's name is wrong",
        AttemptError::Tls(_) => "its certificate must be one that this machine's authorities vouch for",
        _ => "the receiver, or a firewall on the way; deliveries wait and are tried again for 24 h",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::doctor::Level;
    use crate::engine::clock;

    fn webhook(url: &str, secrets: usize) -> Webhook {
        Webhook { application: "demo".to_owned(), url: url.parse().unwrap(), secrets, allow_private: true }
    }

    #[test]
    fn a_secret_in_the_address_is_not_shown() {
        let webhook = webhook("https://shop.example:8443/hook/s3cret?token=s3cret", 1);
        assert_eq!(subject(&webhook), "demo https://shop.example:8443");
        let refused = Err(AttemptError::Connect(io::ErrorKind::ConnectionRefused));
        let finding = judge(&webhook, refused, Duration::ZERO, clock::utc());
        assert_eq!(finding.level, Level::Fail);
        assert!(!format!("{finding:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_reached_tells_address_time_and_secrets() {
        let reached = Reached { address: Some("192.0.2.1:80".parse().unwrap()), certificate: None };
        let finding = judge(&webhook("http://shop.example/", 2), Ok(reached), Duration::from_millis(12), clock::utc());
        assert_eq!(finding.found, "connects 192.0.2.1:80 in 12 ms, 2 secrets; nothing was sent");
    }

    #[tokio::test]
    async fn endpoints_are_told_in_their_order() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("http://{}/", taken.local_addr().unwrap());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let clocks = Clocks { utc: clock::utc, instant: clock::instant };
        let all = vec![webhook(&format!("http://{closed}/"), 1), webhook(&open, 1)];
        let levels: Vec<_> = check(all, clocks).await.into_iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Ok]);
    }
}
