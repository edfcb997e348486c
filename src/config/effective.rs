//! The settings in force, as the file would say them, for `ringproof check`.
//!
//! Invariant: no secret is in it. A configuration without secrets reads back as itself.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::{Configuration, TrunkExtras};
use crate::api::Key;
use crate::api::scope::Scopes;
use crate::call::dialplan::NumberFormat;
use crate::call::event::TrunkId;
use crate::call::trunk::{Confirm, DidSource, Forwarded, Path, Restricted, Scope, SpecialLines, Trunk, Trust};
use crate::call::verdict::Attestation;
use crate::outbox::event::EventType;
use crate::transport::tcp;
use crate::verify::settings::{Application, ApplicationId, NumberRange, Rate};
use crate::webhook::settings::Endpoint;

/// Renders `configuration` with all defaults filled in and all secrets masked.
#[must_use]
pub fn effective(configuration: &Configuration) -> String {
    let mut page = Page(String::new());
    page.section("[node]");
    page.key("name", text(&configuration.node_name));
    page.key("data_dir", text(&configuration.data_dir.to_string_lossy()));

    page.section("[sip]");
    page.key("listen", list(configuration.sip.listen.iter().map(|listener| text(&listener.to_string()))));
    page.key("tcp", tcp(&configuration.sip.tcp));
    page.key("workers", configuration.sip.workers);
    page.key("recent_calls", configuration.sip.recent_calls);
    page.key("drain_seconds", configuration.sip.drain.as_secs());

    for ((trunk, extras), place) in configuration.trunks.iter().zip(&configuration.trunk_extras).zip(0..) {
        if trunk.name == Trunk::SANDBOX {
            continue;
        }
        let peers = configuration.peers.iter().filter(|(_, owner)| *owner == TrunkId(place));
        write_trunk(&mut page, trunk, *extras, list(peers.map(|(network, _)| text(&network.to_string()))));
    }
    for range in configuration.verify.numbers.ranges() {
        write_number(&mut page, range, configuration);
    }
    for (application, place) in configuration.verify.applications.iter().zip(0..) {
        let keys = configuration.keys.iter().filter(|key| key.application == ApplicationId(place));
        let origins = configuration.origins.iter().filter(|origin| origin.application == ApplicationId(place));
        let origins = list(origins.map(|origin| text(&origin.text)));
        write_application(&mut page, application, list(keys.map(masked_key)), origins);
        for endpoint in configuration.webhooks.iter().filter(|endpoint| endpoint.application == application.name) {
            write_webhook(&mut page, endpoint);
        }
    }

    page.section("[api]");
    write_api(&mut page, configuration);
    page.section("[admin]");
    page.key("listen", text(&configuration.admin_listen.to_string()));
    if configuration.admin_token.is_some() {
        page.key("token", text("***"));
    }
    page.section("[store]");
    page.key("engine", text("embedded"));
    page.key("max_pending", configuration.verify.max_pending);
    page.section("[retention]");
    let retention = &configuration.retention;
    page.key("verifications", text(&short(retention.verifications)));
    page.key("calls", text(&short(retention.calls)));
    page.key("events", text(&short(retention.events)));
    page.key("audit", text(&short(retention.audit)));
    page.0
}

/// `sip.tcp` as the file writes it.
pub(super) fn tcp(settings: &tcp::Settings) -> String {
    format!(
        "{{ connections = {}, connections_per_peer = {}, idle_seconds = {}, message_seconds = {} }}",
        settings.connections,
        settings.connections_per_peer,
        settings.idle.as_secs(),
        settings.message.as_secs()
    )
}

fn write_trunk(page: &mut Page, trunk: &Trunk, extras: TrunkExtras, peers: String) {
    page.section("[[trunk]]");
    page.key("name", text(&trunk.name));
    page.key("profile", text(extras.profile));
    page.key("peers", peers);
    page.key("country", text(trunk.dialplan.country()));
    let scope = match trunk.scope {
        Scope::National => "national",
        Scope::International => "international",
        Scope::Mixed => "mixed",
    };
    page.key("scope", text(scope));
    let path = match trunk.path {
        Path::Private => "private",
        Path::Public => "public",
    };
    page.key("path", text(path));
    let confirm = match trunk.confirm {
        Confirm::Invite => "invite",
        Confirm::Ack => "ack",
    };
    page.key("confirm", text(confirm));
    let reject = &trunk.reject;
    let q850 = reject.q850.unwrap_or(0);
    page.key("reject", format!("{{ code = {}, phrase = {}, q850 = {q850} }}", reject.code, text(&reject.phrase)));
    let trust = match trunk.asserted_trust {
        Trust::None => "none",
        Trust::Customer => "customer",
        Trust::Operator => "operator",
        Trust::OnNet => "on-net",
    };
    let restricted = match trunk.restricted {
        Restricted::MatchOnly => "match_only",
        Restricted::Refuse => "refuse",
    };
    let format = match extras.number_format {
        NumberFormat::Auto => "auto",
        NumberFormat::E164NoPlus => "e164_noplus",
        NumberFormat::Nsn => "nsn",
    };
    let sources = list(trunk.sources.iter().map(|source| text(source.as_str())));
    let verdict_headers = list(trunk.verdict_headers.iter().map(|header| text(header.as_str())));
    let bare = trunk.bare_verdict.map_or("none", Attestation::as_str);
    let tech_prefix = text(trunk.dialplan.tech_prefix());
    let repair = list(trunk.dialplan.repairs().iter().map(|repair| text(repair.as_str())));
    let special_lines = match trunk.special_lines {
        SpecialLines::Refuse => "refuse",
        SpecialLines::Flag => "flag",
    };
    page.key(
        "cli",
        format!(
            "{{ sources = {sources}, asserted_trust = \"{trust}\", restricted = \"{restricted}\", \
             number_format = \"{format}\", verdict_headers = {verdict_headers}, bare_verdict = \"{bare}\", \
             tech_prefix = {tech_prefix}, repair = {repair}, special_lines = \"{special_lines}\" }}"
        ),
    );
    let did = match trunk.did {
        DidSource::RequestUri => "request-uri",
        DidSource::To => "to",
        DidSource::PCalledPartyId => "p-called-party-id",
    };
    page.key("did", format!("{{ source = \"{did}\" }}"));
    let forwarded = match trunk.forwarded {
        Forwarded::Refuse => "refuse",
        Forwarded::Flag => "flag",
    };
    page.key("forwarded", text(forwarded));
    page.key("mode", text("reject"));
    let limits = &trunk.limits;
    page.key(
        "limits",
        format!(
            "{{ calls_per_second = {}, concurrent = {}, peer_calls_per_second = {}, peer_concurrent = {} }}",
            limits.calls_per_second, limits.concurrent, limits.peer_calls_per_second, limits.peer_concurrent
        ),
    );
    page.key("allow_loopback", extras.allow_loopback);
}

fn write_number(page: &mut Page, range: &NumberRange, configuration: &Configuration) {
    page.section("[[number]]");
    page.key("range", text(&format!("{}/{}", range.first, range.count)));
    let trunks = range.trunks.iter().map(|id| text(&configuration.verify.trunks[usize::from(id.0)]));
    page.key("trunks", list(trunks));
    let applications = range.applications.iter().map(|id| text(&configuration.verify.application(*id).name));
    page.key("applications", list(applications));
    page.key("cool_down_seconds", range.cool_down.as_secs());
}

fn write_application(page: &mut Page, application: &Application, keys: String, origins: String) {
    page.section("[[application]]");
    page.key("name", text(&application.name));
    page.key("mode", text(if application.live { "live" } else { "sandbox" }));
    page.key("keys", keys);
    page.key("ttl_seconds", application.ttl.as_secs());
    page.key("minimum_assurance", text(application.minimum_assurance.as_str()));
    page.key("allowed_origins", origins);
    let limits = &application.limits;
    page.key(
        "limits",
        format!(
            "{{ creates_per_phone = {}, creates_per_client_ip = {}, creates_per_second = {}, pending_per_phone = {} }}",
            rate(limits.creates_per_phone),
            rate(limits.creates_per_client_ip),
            limits.creates_per_second.unwrap_or(0),
            limits.pending_per_phone
        ),
    );
}

fn write_webhook(page: &mut Page, endpoint: &Endpoint) {
    page.section("[[application.webhook]]");
    // Senders often carry their own secret in the query.
    let url = endpoint.url.to_string();
    let shown = url.split_once('?').map_or_else(|| url.clone(), |(path, _)| format!("{path}?***"));
    page.key("url", text(&shown));
    // The public part of a key is what the receiver needs.
    let shown = endpoint.secrets.iter().map(|secret| secret.public().unwrap_or_else(|| "whsec_***".to_owned()));
    page.key("secrets", list(shown.map(|secret| text(&secret))));
    page.key("events", list(endpoint.events.iter().copied().map(EventType::as_str).map(text)));
    page.key("allow_private", endpoint.allow_private);
    page.key("batch", endpoint.batch);
}

fn write_api(page: &mut Page, configuration: &Configuration) {
    let api = &configuration.api;
    page.key("listen", text(&configuration.api_listen.to_string()));
    if let Some(tls) = &api.tls {
        let (cert, key) = (text(&tls.cert.to_string_lossy()), text(&tls.key.to_string_lossy()));
        page.key("tls", format!("{{ cert = {cert}, key = {key} }}"));
    }
    if let Some(url) = &api.public_url {
        page.key("public_url", text(url));
    }
    page.key("trusted_proxies", list(api.trusted_proxies.iter().map(|network| text(&network.to_string()))));
    page.key("connections", api.connections);
    page.key("connections_per_address", api.connections_per_address.unwrap_or(0));
}

/// The beginning of a hash, enough to tell keys apart, and what the key is held to.
fn masked_key(key: &Key) -> String {
    let hash = text(&format!("sha256:{}..", key.name));
    let mut held = Vec::new();
    if key.scopes != Scopes::ALL {
        held.push(format!("scopes = {}", list(key.scopes.iter().map(|scope| text(scope.as_str())))));
    }
    if let Some(expires) = key.expires {
        held.push(format!("expires = {}", text(&humantime::format_rfc3339(expires).to_string())));
    }
    if !key.cidrs.is_empty() {
        held.push(format!("cidrs = {}", list(key.cidrs.iter().map(|network| text(&network.to_string())))));
    }
    if held.is_empty() { hash } else { format!("{{ hash = {hash}, {} }}", held.join(", ")) }
}

fn rate(rate: Option<Rate>) -> String {
    rate.map_or_else(|| text("0"), |rate| text(&format!("{}/{}", rate.count, short(rate.per))))
}

/// A time in the largest unit that shows all of it.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_nanos() > 0 {
        return humantime::format_duration(time).to_string();
    }
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let (unit, letter) = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, "s"));
    format!("{}{letter}", seconds / unit)
}

pub(super) fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// The text so far.
struct Page(String);

impl Page {
    fn section(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Display) {
        // Writing to a `String` does not fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_exact() {
        let cases =
            [(30 * 86_400, "30d"), (31 * 86_400, "31d"), (3600, "1h"), (600, "10m"), (90, "90s"), (90_000, "25h")];
        for (seconds, shown) in cases {
            assert_eq!(short(Duration::from_secs(seconds)), shown);
        }
        assert_eq!(short(Duration::from_millis(1500)), "1s 500ms");
    }
}
