//! The text of a node's configuration, section by section.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Signs every webhook of these tests.
pub const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A trunk on loopback, over which an asserted Saudi number is worth B.
pub const TRUNK: &str = r#"
[[trunk]]
name    = "local"
peers   = ["127.0.0.0/8", "::1"]
country = "SA"
scope   = "national"
cli     = { sources = ["pai", "from"], asserted_trust = "operator" }
"#;

/// A hundred numbers.
pub const NUMBERS: &str = r#"
[[number]]
range  = "+966115000000/100"
trunks = ["local"]
"#;

/// One number, so that it is known which.
pub const ONE_NUMBER: &str = r#"
[[number]]
e164   = "+966115000042"
trunks = ["local"]
"#;

/// What [`ONE_NUMBER`] holds.
pub const NUMBER: &str = "+966115000042";

/// What a node is told. Fields hold whole sections.
#[derive(Clone)]
pub struct Config {
    pub listen: Vec<String>,
    pub workers: usize,
    pub drain_seconds: u32,
    /// More of `[sip]`.
    pub sip: String,
    pub trunks: String,
    pub numbers: String,
    pub applications: String,
    /// More of `[api]`.
    pub api: String,
    /// More of `[admin]`.
    pub admin: String,
    /// What `[store]` says.
    pub store: String,
    /// `RINGPROOF_LOG`.
    pub log: &'static str,
}

impl Config {
    /// A node with the sandbox application `demo` whose terminal events go to `url`.
    pub fn new(url: &str) -> Self {
        Self {
            listen: vec!["udp://127.0.0.1:0".to_owned()],
            workers: 2,
            drain_seconds: 30,
            sip: String::new(),
            trunks: TRUNK.to_owned(),
            numbers: NUMBERS.to_owned(),
            applications: application("demo", "", &[webhook(url, "")]),
            api: String::new(),
            admin: String::new(),
            store: String::new(),
            log: "info",
        }
    }

    /// The file, with the listeners that a start before has had.
    pub fn text(&self, listening: &[String]) -> String {
        let listen = if listening.is_empty() { &self.listen } else { listening };
        let listen: Vec<String> = listen.iter().map(|url| format!("\"{url}\"")).collect();
        format!(
            "[node]\nname = \"e2e\"\ndata_dir = \"data\"\n\n\
             [sip]\nlisten = [{}]\nworkers = {}\nrecent_calls = 4096\ndrain_seconds = {}\n{}\n\
             {}{}{}\n\
             [api]\nlisten = \"127.0.0.1:0\"\n{}\n\n[admin]\nlisten = \"127.0.0.1:0\"\n{}\n\n[store]\n{}\n",
            listen.join(", "),
            self.workers,
            self.drain_seconds,
            self.sip,
            self.trunks,
            self.numbers,
            self.applications,
            self.api,
            self.admin,
            self.store,
        )
    }
}

/// A sandbox application with the key of [`key`]. `lines` are more of its settings.
pub fn application(name: &str, lines: &str, webhooks: &[String]) -> String {
    let mut text = format!("\n[[application]]\nname = \"{name}\"\nkeys = [\"{}\"]\n{lines}\n", key_hash(&key(name)));
    for webhook in webhooks {
        text.write_str(webhook).unwrap();
    }
    text
}

/// A webhook for the application before it. `lines` are more of its settings.
pub fn webhook(url: &str, lines: &str) -> String {
    format!("[[application.webhook]]\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n{lines}\n")
}

/// The API key of the sandbox application with this name.
pub fn key(name: &str) -> String {
    format!("rp_test_{}", hex(&Sha256::digest(name)))
}

/// The API key of the live application with this name.
pub fn live_key(name: &str) -> String {
    format!("rp_live_{}", hex(&Sha256::digest(name)))
}

/// What the configuration says of a key.
pub fn key_hash(key: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(key)))
}

/// A Saudi mobile number for each index.
pub fn phone(index: u32) -> String {
    assert!(index < 10_000_000);
    format!("+96650{index:07}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
