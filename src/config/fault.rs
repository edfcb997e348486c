//! Everything that can be wrong in the file: what it is, and what would be right.
//!
//! Invariant: the text of a fault is one line, quotes at most [`SHOWN`] characters of the file, and never a secret.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::api::tls::IdentityError;
use crate::e164::{E164, NumberError};
use crate::webhook::signature::SecretError;

/// Most characters of the file's own text that a fault repeats.
const SHOWN: usize = 80;

/// One thing that the operator has to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence beside each variant says what it and its fields mean")]
pub enum Fault {
    // The file as such.
    #[error("cannot be read: {reason}; name the right file with -c")]
    Unreadable { reason: String },
    #[error("is larger than {max} bytes; a configuration is not")]
    TooLarge { max: u64 },
    #[error("is not UTF-8 text from byte {offset} on; save it as UTF-8")]
    NotText { offset: usize },
    #[error("{} more faults are not shown; correct these first", .count)]
    More { count: usize },
    #[error("`{key}` was {was} when the node was started, and only a restart changes it; write that again, or restart")]
    NeedsRestart { key: &'static str, was: String },
    #[error(
        "with this file {count} {what} would have been in use since the node was started, and {max} are possible; restart to forget those that are gone"
    )]
    NoPlaceLeft { what: &'static str, count: usize, max: usize },
    #[error("this is no TOML: {message}")]
    Syntax { message: String },
    #[error("this is no value; a text stands in quotes, such as `\"edge-1\"`")]
    NoValue,
    #[error("the list before this is not closed; write `]` behind its last element")]
    OpenList,
    #[error("this key or section is there already; keep one of them")]
    Doubled,

    // Keys and types.
    #[error("unknown key `{key}` in {section}; {}", DidYouMean(*.nearest, .known))]
    UnknownKey { key: Quoted, section: &'static str, nearest: Option<&'static str>, known: Vec<&'static str> },
    #[error("`{key}` must be {wanted}, such as `{key} = {example}`; this is {found}")]
    WrongType { key: &'static str, wanted: &'static str, found: &'static str, example: &'static str },
    #[error("write `{right}`, {why}")]
    Brackets { right: String, why: &'static str },
    #[error("`{key}` is missing in {section}; write for example `{key} = {example}`")]
    Missing { key: &'static str, section: &'static str, example: &'static str },
    #[error("`{key}` is empty; write for example `{key} = {example}`")]
    Empty { key: &'static str, example: &'static str },
    #[error("there is no {section}; add one: {meaning}")]
    NoSection { section: &'static str, meaning: &'static str },
    #[error("`{key} = {value}` is out of range; it takes {low} to {high}")]
    OutOfRange { key: &'static str, value: Quoted, low: String, high: String },
    #[error("`{key}` cannot be `{word}`; {}", DidYouMean(*.nearest, .words))]
    UnknownWord { key: &'static str, word: Quoted, nearest: Option<&'static str>, words: Vec<&'static str> },
    #[error("`{word}` stands twice in `{key}`; remove one")]
    Repeated { key: &'static str, word: Quoted },
    #[error("`{text}` is no tech prefix; it has at most {max} digits, `#` and `*`, for example `1234#`")]
    TechPrefix { text: Quoted, max: usize },
    #[error("{count} {what} are too many; at most {max} are possible")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("`{what}` is not in this version; {instead}")]
    NotInThisVersion { what: String, instead: String },

    // Names.
    #[error(
        "`{name}` is no name: it takes 1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first; write for example `{proposal}`"
    )]
    Name { name: Quoted, proposal: String },
    #[error("`{name}` is the name of the built-in trunk; choose another one")]
    ReservedName { name: &'static str },
    #[error("{what} `{name}` is there already, in line {line}; choose another name")]
    SameName { what: &'static str, name: String, line: usize },

    // Listeners.
    #[error("`data_dir` must be a path of 1 to {max} bytes, such as `data_dir = \"ringproof-data\"`")]
    DataDir { max: usize },
    #[error("`{text}` is no listener; write transport, IP address and port, such as `{example}`")]
    Listener { text: Quoted, example: String },
    #[error("`{text}` is no IP address with port; write for example `{example}`")]
    Address { text: Quoted, example: String },
    #[error("{address} is listened on already, in line {line}; choose another port")]
    SameListener { address: SocketAddr, line: usize },
    #[error(
        "{address} is not loopback, so the admin side needs a token; write `token = \"env:ADMIN_TOKEN\"` in [admin]"
    )]
    TokenNeeded { address: SocketAddr },
    #[error("the token must be 1 to {max} visible ASCII characters without spaces")]
    Token { max: usize },

    #[error("`{text}` is no address of the API; write scheme, host and port alone, such as `https://verify.example`")]
    PublicUrl { text: Quoted },
    #[error("`{path}` cannot be read: {reason}; change its place or its permissions")]
    NamedFile { path: Quoted, reason: String },
    #[error("`{path}` {fault}; `cert` names the certificate chain, `key` its private key")]
    Identity { path: Quoted, fault: IdentityError },

    // Trunks.
    #[error("`{text}` is no address or network; write for example `192.0.2.1` or `192.0.2.0/24`")]
    Peer { text: Quoted },
    #[error("`{text}` has host bits set; the network is `{network}`, the single address `{host}`")]
    HostBits { text: Quoted, network: IpNet, host: IpNet },
    #[error("`{text}` is an IPv4 network in IPv6 form; {}", MappedPeer(.ipv4))]
    MappedPeer { text: Quoted, ipv4: Option<IpNet> },
    #[error("`{network}` belongs to trunk `{trunk}` already, in line {line}; keep it in one of them")]
    SamePeer { network: IpNet, trunk: String, line: usize },
    #[error("`{text}` is no country; write its ISO 3166 code, such as `{proposal}`")]
    Country { text: Quoted, proposal: String },
    #[error(
        "a call cannot be refused with {code}; it takes a 4xx or 6xx code but 401, 407, 408, 481, 482, 487, 491 and 494, such as 486, 480 or 603"
    )]
    RejectCode { code: Quoted },
    #[error("`phrase` must be 1 to {max} bytes of text without control characters, such as `phrase = \"Busy Here\"`")]
    RejectPhrase { max: usize },
    #[error("no [[number]] names trunk `{name}`; add it to the `trunks` of a number, or remove it")]
    UnusedTrunk { name: String },

    // Numbers.
    #[error("`{text}` {error}; write for example `+966115000000`")]
    Number { text: Quoted, error: NumberError },
    #[error("`{text}` is no range; write its first number and how many, such as `+966115000000/100`")]
    Range { text: Quoted },
    #[error("a range holds 1 to {max} numbers, not {count}; {}", if .count == "0" { "write at least `/1`" } else { "split it" })]
    RangeCount { count: String, max: u32 },
    #[error("{count} numbers from `{first}` leave its calling code; write at most `{first}/{fit}`")]
    RangeEnd { first: E164Shown, count: u32, fit: u64 },
    #[error("`range` and `e164` stand side by side; keep one of them")]
    RangeAndNumber,
    #[error(
        "`range` is missing in [[number]]; write for example `range = \"+966115000000/100\"`, or `e164` for one number"
    )]
    NoRange,
    #[error("`{this}` overlaps `{other}` of line {line}; a number stands in one range")]
    Overlap { this: RangeShown, other: RangeShown, line: usize },
    #[error("there is no {what} `{name}`; {}", DidYouMean(.nearest.as_deref(), .known))]
    UnknownReference { what: &'static str, name: Quoted, nearest: Option<String>, known: Vec<String> },
    #[error(
        "`applications` may be left out only while there is one application; write for example `applications = [\"{example}\"]`"
    )]
    ApplicationsNeeded { example: String },
    #[error("a number cannot serve sandbox application `{sandbox}` and live application `{live}`; give each its own")]
    SharedModes { sandbox: String, live: String },
    #[error(
        "trunk `{trunk}` has loopback peers ({peer}) and application `{application}` is live: a program on this machine could place its calls; use another trunk, or set `allow_loopback = true` in that trunk"
    )]
    LoopbackLive { trunk: String, peer: IpNet, application: String },

    // Applications.
    #[error("no [[number]] serves application `{name}`; add it to the `applications` of a number, or remove it")]
    ApplicationWithoutNumber { name: String },
    #[error("a live application needs a key; `ringproof key new --live` prints one and its line for `keys`")]
    LiveWithoutKey,
    #[error("a key is written as its hash, `sha256:` and 64 hex digits, as `ringproof key new` prints it")]
    KeyHash,
    #[error(
        "this is a key itself: replace it by its hash, `sha256:` and 64 hex digits, and mint a new one with `ringproof key new`, for whoever reads this file has it"
    )]
    KeyItself,
    #[error(
        "this key stands in application `{application}` already, in line {line}; mint another one with `ringproof key new`"
    )]
    SameKey { application: String, line: usize },
    #[error("`{text}` is no time; write the key's last moment as date, time and zone, such as `2027-01-31T00:00:00Z`")]
    Date { text: Quoted },
    #[error(
        "`*` would let every page in the web follow this application's users; list each origin, such as `https://shop.example`"
    )]
    AnyOrigin,
    #[error("`{text}` is no origin as browsers send it; write `{right}`")]
    Origin { text: Quoted, right: Quoted },
    #[error("`{text}` is a plain http origin, which only a sandbox application may have; write `https://..`")]
    PlainOrigin { text: Quoted },
    #[error("`{text}` is no rate for `{key}`; write a count and a time, such as `\"5/10m\"`, or 0 for no limit")]
    Rate { key: &'static str, text: Quoted },
    #[error("`{text}` is no time for `{key}`; write for example `\"30d\"` or `\"12h\"`")]
    Time { key: &'static str, text: Quoted },

    // Webhooks.
    #[error("`url` must be an http or https address with a host, such as `https://shop.example/hook`")]
    Url,
    #[error("`url` carries a user or password; remove it: receivers know the sender by the signature")]
    UrlUser,
    #[error(
        "a live application's webhook needs https; write `https://..`, or set `allow_private = true` in this webhook"
    )]
    PlainHttp,
    #[error("`{host}` is not a public address; use one, or set `allow_private = true` in this webhook")]
    PrivateHost { host: Quoted },
    #[error("this address has a webhook already, in line {line}; join their `events`")]
    SameUrl { line: usize },
    #[error("a webhook secret {fault}; `echo whsec_$(openssl rand -base64 32)` makes a good one")]
    WebhookSecret { fault: SecretError },

    // Secrets kept elsewhere.
    #[error("environment variable `{name}` is not set; set it, or change `env:{name}`")]
    UnsetVariable { name: Quoted },
    #[error("environment variable `{name}` is empty; give it a value")]
    EmptyVariable { name: Quoted },
    #[error("secret file `{path}` cannot be read: {reason}; change its place or its permissions")]
    SecretFile { path: Quoted, reason: String },
}

impl Fault {
    /// Whether the fault is that a key stands in a section where it does not belong. Where a section's header is
    /// broken, that is likely to follow from it.
    pub(super) fn is_misplacement(&self) -> bool {
        matches!(self, Self::UnknownKey { .. } | Self::Brackets { .. })
    }

    /// Whether the fault is that something is not there. Where the file's grammar is broken, that is likely to follow
    /// from it.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Empty { .. }
                | Self::NoSection { .. }
                | Self::TokenNeeded { .. }
                | Self::UnusedTrunk { .. }
                | Self::NoRange
                | Self::UnknownReference { .. }
                | Self::ApplicationsNeeded { .. }
                | Self::LoopbackLive { .. }
                | Self::ApplicationWithoutNumber { .. }
                | Self::LiveWithoutKey
                | Self::PlainHttp
                | Self::PrivateHost { .. }
        )
    }
}

/// Text from the file, safe to print: control characters escaped, length bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Makes `text` printable.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let mut shown = String::new();
        for (index, character) in text.chars().enumerate() {
            if index == SHOWN {
                shown.push_str("..");
                break;
            }
            // What is invisible or turns the line around is as bad as a line feed.
            if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                shown.extend(character.escape_unicode());
            } else {
                shown.push(character);
            }
        }
        Self(shown)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that people call: no secret, so it is shown in full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct E164Shown(pub(super) E164);

impl fmt::Display for E164Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for E164Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A range as the file writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeShown {
    pub(super) first: E164Shown,
    pub(super) count: u32,
}

impl fmt::Display for RangeShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 1 { self.first.fmt(f) } else { write!(f, "{}/{}", self.first, self.count) }
    }
}

/// The nearest right word, or all of them.
struct DidYouMean<'a, T>(Option<&'a str>, &'a [T]);

impl<T: AsRef<str>> fmt::Display for DidYouMean<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(nearest, all) = self;
        if let Some(nearest) = nearest {
            return write!(f, "did you mean `{nearest}`?");
        }
        f.write_str("possible here: ")?;
        for (index, word) in all.iter().take(20).enumerate() {
            write!(f, "{}{}", if index > 0 { ", " } else { "" }, word.as_ref())?;
        }
        if all.len() > 20 { f.write_str(", ..") } else { Ok(()) }
    }
}

/// What to write for an IPv4-mapped peer.
struct MappedPeer<'a>(&'a Option<IpNet>);

impl fmt::Display for MappedPeer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(network) => write!(f, "write `{network}`"),
            None => f.write_str("write the IPv4 network itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_stays_on_its_line_and_short() {
        assert_eq!(Quoted::new("a\nb\u{202e}").to_string(), "a\\u{a}b\\u{202e}");
        assert_eq!(Quoted::new("x".repeat(1000)).to_string().len(), SHOWN + 2);
    }

    #[test]
    fn faults_say_what_would_be_right() {
        let fault = Fault::UnknownWord {
            key: "scope",
            word: Quoted::new("x"),
            nearest: None,
            words: vec!["national", "international", "mixed"],
        };
        assert_eq!(fault.to_string(), "`scope` cannot be `x`; possible here: national, international, mixed");
    }
}
