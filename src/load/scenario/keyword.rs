//! The keywords of SIPp, and what each becomes in a message.
//!
//! Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::fields::Fields;
use super::received::Head;
use crate::sip::flow::Transport;

/// Port that `[media_port]` gives: nothing listens there, it only stands in descriptions of sessions.
const MEDIA_PORT: u16 = 6_000;

/// Keywords that take nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    CallId,
    CallNumber,
    LastRequestUri,
    LocalIp,
    LocalIpType,
    MediaIp,
    MediaIpType,
    MessageIndex,
    PeerTagParameter,
    ProcessId,
    RemoteIp,
    Timestamp,
    Transport,
}

/// Keywords that take `+n` or `-n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Branch,
    CSeq,
    LastCSeq,
    Length,
    LocalPort,
    MediaPort,
    RemotePort,
}

/// What each of them is called.
pub(super) const KEYWORDS: [(&str, Keyword); 13] = [
    ("call_id", Keyword::CallId),
    ("call_number", Keyword::CallNumber),
    ("last_Request_URI", Keyword::LastRequestUri),
    ("local_ip", Keyword::LocalIp),
    ("local_ip_type", Keyword::LocalIpType),
    ("media_ip", Keyword::MediaIp),
    ("media_ip_type", Keyword::MediaIpType),
    ("msg_index", Keyword::MessageIndex),
    ("peer_tag_param", Keyword::PeerTagParameter),
    ("pid", Keyword::ProcessId),
    ("remote_ip", Keyword::RemoteIp),
    ("timestamp", Keyword::Timestamp),
    ("transport", Keyword::Transport),
];

/// What each of these is called.
pub(super) const NUMBERS: [(&str, Number); 7] = [
    ("branch", Number::Branch),
    ("cseq", Number::CSeq),
    ("last_cseq_number", Number::LastCSeq),
    ("len", Number::Length),
    ("local_port", Number::LocalPort),
    ("media_port", Number::MediaPort),
    ("remote_port", Number::RemotePort),
];

/// The two ends of the way that the messages take.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// UDP or TCP.
    pub transport: Transport,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// What the keywords become in one message.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The way.
    pub ends: &'a Ends,
    /// A number of this run, in the place of a process number: two runs have different ones.
    pub run: u32,
    /// Number of the call, from 1.
    pub number: u64,
    /// Place of the step in the scenario, from 0.
    pub index: usize,
    /// What `[cseq]` gives.
    pub cseq: u32,
    /// `;tag=..` of the peer, or nothing.
    pub peer_tag: &'a [u8],
    /// Head of the last message of the peer, or nothing.
    pub last: &'a [u8],
    /// The call's line of the CSV.
    pub line: Option<(&'a Fields, usize)>,
    /// Time since 1970-01-01, UTC.
    pub time: Duration,
}

impl Keyword {
    pub(super) fn append(self, view: &View<'_>, out: &mut Vec<u8>) {
        let text = match self {
            Self::CallId => return append_call_id(view.ends, view.run, view.number, out),
            Self::CallNumber => view.number.to_string(),
            Self::LastRequestUri => {
                out.extend_from_slice(Head::of(view.last).to_uri().unwrap_or_default());
                return;
            }
            Self::LocalIp => bracketed(view.ends.local.ip()),
            Self::LocalIpType | Self::MediaIpType => ip_type(view.ends.local.ip()).to_owned(),
            Self::MediaIp => view.ends.local.ip().to_string(),
            Self::MessageIndex => view.index.to_string(),
            Self::PeerTagParameter => {
                out.extend_from_slice(view.peer_tag);
                return;
            }
            Self::ProcessId => view.run.to_string(),
            Self::RemoteIp => bracketed(view.ends.remote.ip()),
            Self::Timestamp => timestamp(view.time),
            Self::Transport => view.ends.transport.label().to_ascii_uppercase(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

impl Number {
    pub(super) fn append(self, offset: i32, view: &View<'_>, out: &mut Vec<u8>) {
        let number = match self {
            // A response's CSeq or nothing: SIPp too goes on with 0.
            Self::LastCSeq => Head::of(view.last).cseq().map_or(0, |(number, _)| i64::from(number)),
            Self::CSeq => i64::from(view.cseq),
            Self::LocalPort => i64::from(view.ends.local.port()),
            Self::MediaPort => i64::from(MEDIA_PORT),
            Self::RemotePort => i64::from(view.ends.remote.port()),
            // The length is filled in once all else is.
            Self::Length => return,
            Self::Branch => {
                out.extend_from_slice(format!("z9hG4bK-{}-{}-", view.run, view.number).as_bytes());
                i64::try_from(view.index).unwrap_or(i64::MAX)
            }
        };
        out.extend_from_slice(number.saturating_add(offset.into()).to_string().as_bytes());
    }
}

/// Appends the identifier of a call: its number, the run's, our address.
pub(super) fn append_call_id(ends: &Ends, run: u32, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{number}-{run}@{}", ends.local.ip()).as_bytes());
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

const fn ip_type(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "4",
        IpAddr::V6(_) => "6",
    }
}

/// Date, time of day and seconds since 1970, each behind a tab, as SIPp writes them; in UTC.
fn timestamp(time: Duration) -> String {
    let (seconds, micros) = (time.as_secs(), time.subsec_micros());
    let date = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let date = date.unwrap_or_default().strftime("%Y-%m-%d\t%H:%M:%S");
    format!("{date}.{micros:06}\t{seconds}.{micros:06}")
}
