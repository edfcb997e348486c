//! `[sip]`, `[api]` and `[admin]`: where the node listens, and what goes with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};

use super::errors::Span;
use super::fault::{Fault, Quoted};
use super::network::network;
use super::section::{Section, Shape, Word};
use super::webhook::has_bad_port;
use super::{Configuration, SipListener, SipSettings, SipTransport, effective};
use crate::api::settings::{CONNECTIONS, CONNECTIONS_PER_ADDRESS, Settings, TlsFiles};
use crate::api::tls::Identity;
use crate::transport::tcp;

/// Most addresses in `sip.listen`.
const MAX_LISTENERS: usize = 16;
/// Most networks in `api.trusted_proxies`.
const MAX_PROXIES: usize = 64;
/// Longest admin token in bytes.
const MAX_TOKEN: usize = 256;

const SIP: Shape = Shape {
    title: "[sip]",
    keys: &[
        ("listen", r#"["udp://127.0.0.1:5060"]"#),
        ("tcp", "{ idle_seconds = 900 }"),
        ("workers", "0"),
        ("recent_calls", "1048576"),
        ("drain_seconds", "30"),
    ],
};
const TCP: Shape = Shape {
    title: "[sip.tcp]",
    keys: &[
        ("connections", "16384"),
        ("connections_per_peer", "12288"),
        ("idle_seconds", "900"),
        ("message_seconds", "10"),
    ],
};
const API: Shape = Shape {
    title: "[api]",
    keys: &[
        ("listen", r#""127.0.0.1:8080""#),
        ("tls", r#"{ cert = "cert.pem", key = "key.pem" }"#),
        ("public_url", r#""https://verify.example""#),
        ("trusted_proxies", r#"["127.0.0.1"]"#),
        ("connections", "16384"),
        ("connections_per_address", "1024"),
    ],
};
const TLS: Shape = Shape { title: "`tls` of [api]", keys: &[("cert", r#""cert.pem""#), ("key", r#""key.pem""#)] };
const ADMIN: Shape =
    Shape { title: "[admin]", keys: &[("listen", r#""127.0.0.1:9090""#), ("token", r#""env:ADMIN_TOKEN""#)] };

/// Everything that listens.
pub(super) struct Listeners {
    pub sip: SipSettings,
    pub api_listen: SocketAddr,
    pub api: Settings,
    pub admin: SocketAddr,
    pub admin_token: Option<SecretString>,
}

/// Reads the three sections; `None` where a fault was told.
pub(super) fn read(root: &Section<'_>) -> Option<Listeners> {
    let sip_section = root.table("sip", &SIP);
    let sip = sip(&sip_section);

    let section = root.table("api", &API);
    let settings = api(&section);
    let api = address(&section, 8080);
    stays(&section, "api.listen", api.as_ref(), |running| running.api_listen);

    let section = root.table("admin", &ADMIN);
    let admin = address(&section, 9090);
    stays(&section, "admin.listen", admin.as_ref(), |running| running.admin_listen);
    let token = token(&section);
    if let Some((address, span)) = &admin
        && !address.ip().is_loopback()
        && section.lacks("token")
    {
        section.tell(span, Fault::TokenNeeded { address: *address });
    }
    if let (Some((api, api_span)), Some((admin, admin_span))) = (&api, &admin)
        && api == admin
        && api.port() != 0
    {
        let (first, second) =
            if api_span.start < admin_span.start { (api_span, admin_span) } else { (admin_span, api_span) };
        section.tell(second, Fault::SameListener { address: *api, line: section.line(first) });
    }
    Some(Listeners { sip: sip?, api_listen: api?.0, api: settings?, admin: admin?.0, admin_token: token? })
}

fn sip(section: &Section<'_>) -> Option<SipSettings> {
    let listen = section.some_words("listen").and_then(|list, span| {
        if list.words.len() > MAX_LISTENERS {
            let count = list.words.len();
            section.tell(span, Fault::TooMany { what: "listeners", count, max: MAX_LISTENERS });
            return None;
        }
        let mut found: Vec<(SipListener, Span)> = Vec::new();
        let mut whole = list.whole;
        for word in list.words {
            let Some(listener) = listener(section, &word) else {
                whole = false;
                continue;
            };
            let address = listener.address;
            if let Some((_, first)) = found.iter().find(|(other, _)| *other == listener && address.port() != 0) {
                section.tell(&word.span, Fault::SameListener { address, line: section.line(first) });
                whole = false;
            }
            found.push((listener, word.span));
        }
        whole.then(|| found.into_iter().map(|(listener, _)| listener).collect())
    });
    let place = listen.place(&section.span);
    let listen = listen.or([SipTransport::Udp, SipTransport::Tcp].map(on_loopback).to_vec());
    if let Some(listen) = &listen {
        section.stays(&place, "sip.listen", &sorted(listen), |running| {
            let shown = running.sip.listen.iter().map(|listener| effective::text(&listener.to_string()));
            (sorted(&running.sip.listen), effective::list(shown))
        });
    }
    let table = section.table("tcp", &TCP);
    let tcp = tcp(&table);
    if let Some(tcp) = &tcp {
        section.stays(&table.span, "sip.tcp", tcp, |running| (running.sip.tcp, effective::tcp(&running.sip.tcp)));
    }
    let workers = section.integer("workers", 0..=1024);
    let place = workers.place(&section.span);
    let workers = workers.or(0).map(|count| if count == 0 { cores() } else { count as usize });
    if let Some(workers) = &workers {
        section.stays(&place, "sip.workers", workers, |running| (running.sip.workers, running.sip.workers.to_string()));
    }
    let recent_calls = section.integer("recent_calls", 1024..=16_777_216);
    let place = recent_calls.place(&section.span);
    let recent_calls = recent_calls.or(1_048_576).map(|count| count as usize);
    if let Some(recent_calls) = &recent_calls {
        section.stays(&place, "sip.recent_calls", recent_calls, |running| {
            (running.sip.recent_calls, running.sip.recent_calls.to_string())
        });
    }
    let drain = section.integer("drain_seconds", 0..=3600);
    Some(SipSettings {
        listen: listen?,
        tcp: tcp?,
        workers: workers?,
        recent_calls: recent_calls?,
        drain: Duration::from_secs(drain.or(30)?.into()),
    })
}

fn api(section: &Section<'_>) -> Option<Settings> {
    let tls = tls(section);
    let public_url = section.text("public_url").and_then(|text, span| {
        let url = public_url(text);
        if url.is_none() {
            section.tell(span, Fault::PublicUrl { text: Quoted::new(text) });
        }
        url.map(Some)
    });
    let proxies = section.words("trusted_proxies").and_then(|list, span| {
        if list.words.len() > MAX_PROXIES {
            section.tell(span, Fault::TooMany { what: "trusted_proxies", count: list.words.len(), max: MAX_PROXIES });
            return None;
        }
        let read: Vec<_> = list.words.iter().map(|word| network(section, word)).collect();
        read.into_iter().collect::<Option<Vec<_>>>().filter(|_| list.whole)
    });
    let connections = section.integer("connections", 16..=1_000_000);
    let place = connections.place(&section.span);
    let connections = connections.or(CONNECTIONS).map(|count| count as usize);
    if let Some(connections) = &connections {
        section.stays(&place, "api.connections", connections, |running| {
            (running.api.connections, running.api.connections.to_string())
        });
    }
    let per_address = section.integer("connections_per_address", 0..=1_000_000);
    let place = per_address.place(&section.span);
    let per_address = per_address.or(CONNECTIONS_PER_ADDRESS).map(|cap| (cap > 0).then_some(cap as usize));
    if let Some(per_address) = &per_address {
        section.stays(&place, "api.connections_per_address", per_address, |running| {
            let was = running.api.connections_per_address;
            (was, was.unwrap_or(0).to_string())
        });
    }
    let (public_url, proxies) = (public_url.or(None), proxies.or(Vec::new()));
    Some(Settings {
        connections: connections?,
        connections_per_address: per_address?,
        trusted_proxies: proxies?,
        public_url: public_url?,
        tls: tls?,
    })
}

/// `Some(None)` is no TLS, `None` a fault.
#[allow(clippy::option_option, reason = "no TLS and a broken one are two things")]
fn tls(api: &Section<'_>) -> Option<Option<TlsFiles>> {
    let speaks = !api.lacks("tls");
    let section = api.table("tls", &TLS);
    let place = if speaks { &section.span } else { &api.span };
    // Another certificate is no change that a client has to hear of; another protocol on the port is.
    api.stays(place, "api.tls", &speaks, |running| {
        let spoke = running.api.tls.is_some();
        (spoke, if spoke { "there" } else { "not there" }.to_owned())
    });
    if !speaks {
        return Some(None);
    }
    let file = |key| {
        let mut place = section.span.clone();
        let read = section.text(key).and_then(|path, span| {
            place = span.clone();
            let text = section.secrets().file(path).map_err(|fault| section.tell(span, fault)).ok()?;
            Some((path, text))
        });
        section.required(key, read).map(|(path, text)| (path, text, place))
    };
    let (cert, key) = (file("cert"), file("key"));
    let ((cert, chain, cert_span), (key, secret, key_span)) = cert.zip(key)?;
    match Identity::read(chain.expose_secret().as_bytes(), secret.expose_secret().as_bytes()) {
        Ok(identity) => {
            let directory = section.secrets().directory.clone();
            Some(Some(TlsFiles { cert: cert.into(), key: key.into(), directory, identity }))
        }
        Err(fault) => {
            let (path, span) = if fault.is_of_certificate() { (cert, cert_span) } else { (key, key_span) };
            section.tell(&span, Fault::Identity { path: Quoted::new(path), fault });
            None
        }
    }
}

/// Scheme, host and port, in the one form to which paths are appended.
fn public_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let plain = matches!(scheme, "http" | "https")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !text.contains(['#', '?'])
        && !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && !has_bad_port(&uri);
    plain.then(|| format!("{scheme}://{authority}"))
}

/// The same listeners in another order are no change.
fn sorted(listen: &[SipListener]) -> Vec<SipListener> {
    let mut sorted = listen.to_vec();
    sorted.sort_unstable();
    sorted
}

/// The cores of this machine. Asked once: what the process may use can change while it runs, and `workers = 0` should
/// not seem to have changed with it.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

fn stays(
    section: &Section<'_>,
    key: &'static str,
    read: Option<&(SocketAddr, Span)>,
    running: impl FnOnce(&Configuration) -> SocketAddr,
) {
    if let Some((address, span)) = read {
        section.stays(span, key, address, |configuration| {
            let was = running(configuration);
            (was, effective::text(&was.to_string()))
        });
    }
}

fn on_loopback(transport: SipTransport) -> SipListener {
    SipListener { transport, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 5060)) }
}

fn tcp(section: &Section<'_>) -> Option<tcp::Settings> {
    let connections = section.integer("connections", 1..=1_000_000).or(16_384);
    let per_peer = section.integer("connections_per_peer", 1..=1_000_000).or(12_288);
    // Longer than a call may wait for its answer, so that none is cut off by it.
    let idle = section.integer("idle_seconds", 5..=86_400).or(900);
    let message = section.integer("message_seconds", 1..=300).or(10);
    Some(tcp::Settings {
        connections: connections? as usize,
        connections_per_peer: per_peer? as usize,
        idle: Duration::from_secs(idle?.into()),
        message: Duration::from_secs(message?.into()),
    })
}

fn listener(section: &Section<'_>, word: &Word<'_>) -> Option<SipListener> {
    let (scheme, rest) = word.text.split_once("://").unwrap_or(("", word.text));
    let address = socket_address(rest);
    let fault = match (scheme, address) {
        ("udp", Ok(address)) => return Some(SipListener { transport: SipTransport::Udp, address }),
        ("tcp", Ok(address)) => return Some(SipListener { transport: SipTransport::Tcp, address }),
        ("tls", _) => Fault::NotInThisVersion {
            what: "tls://".to_owned(),
            instead: "remove this listener, SIP is heard on udp:// and tcp://".to_owned(),
        },
        (scheme, address) => {
            let scheme = if scheme == "tcp" { "tcp" } else { "udp" };
            let example = address.map_or_else(|example| example, |address| address.to_string());
            Fault::Listener { text: Quoted::new(word.text), example: format!("{scheme}://{example}") }
        }
    };
    section.tell(&word.span, fault);
    None
}

fn address(section: &Section<'_>, port: u16) -> Option<(SocketAddr, Span)> {
    let mut place = section.span.clone();
    let entry = section.text("listen").and_then(|text, span| {
        place = span.clone();
        let bare = text.strip_prefix("http://").unwrap_or(text);
        match (socket_address(bare), bare == text) {
            (Ok(address), true) => Some(address),
            (Ok(address), false) => {
                section.tell(span, Fault::Address { text: Quoted::new(text), example: address.to_string() });
                None
            }
            (Err(_), _) => {
                let example = format!("127.0.0.1:{port}");
                section.tell(span, Fault::Address { text: Quoted::new(text), example });
                None
            }
        }
    });
    Some((entry.or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?, place))
}

/// Reads IP address and port; an error is what may have been meant.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::from((ip, 5060)).to_string(),
        Err(_) => "127.0.0.1:5060".to_owned(),
    })
}

/// `Some(None)` is no token, `None` a fault.
#[allow(clippy::option_option, reason = "no token and a broken one are two things")]
fn token(section: &Section<'_>) -> Option<Option<SecretString>> {
    section
        .text("token")
        .and_then(|text, span| {
            let told = |fault| section.tell(span, fault);
            let secret = section.secrets().resolve(text).map_err(told).ok()?;
            let exposed = secret.expose_secret();
            if exposed.is_empty() || exposed.len() > MAX_TOKEN || !exposed.bytes().all(|byte| byte.is_ascii_graphic()) {
                section.tell(span, Fault::Token { max: MAX_TOKEN });
                return None;
            }
            Some(Some(secret))
        })
        .or(None)
}
