//! The body of a stream: the present state at once, then every change, then the end.
//!
//! A stream tells states, not a log of them: one that comes late or slowly gets the newest. The id of an event is the
//! state itself, so that a browser which comes back is told exactly what it has not seen, also by a node that was
//! restarted meanwhile. What waits to be sent is one event at most, and no longer than the token lives.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::{Bytes, HttpBody};
use axum::http::HeaderValue;
use hyper::body::Frame;
use rand::RngExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::streams::Place;
use super::token::dies_at;
use crate::api::{Shared, stopped};
use crate::matcher::verification::{Status, Timestamp, Verification, VerificationId};
use crate::verify::Watch;
use crate::verify::request::{Reason, Reasons};

/// How often a stream without news sends a comment, so that no proxy takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a browser comes back after a broken connection. Each stream draws its own, so that after a restart not all come
/// at once.
const RETRY_MILLISECONDS: std::ops::RangeInclusive<u32> = 1_000..=3_000;
/// What its user can do something about. The others tell of trust between networks, and would tell a forger why his
/// call did not count.
const REASONS_OF_USER: [Reason; 4] =
    [Reason::CliWithheld, Reason::Forwarded, Reason::Superseded, Reason::ClientCanceled];

/// What a browser has seen: the id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    status: Status,
    reasons: Reasons,
}

impl Seen {
    /// Of a verification whose data was erased.
    const ERASED: Self = Self { status: Status::Canceled, reasons: Reasons::NONE };

    pub(super) fn of(verification: &Verification) -> Self {
        let shown = REASONS_OF_USER.into_iter().filter(|reason| verification.reasons.contains(*reason));
        Self { status: verification.status, reasons: shown.fold(Reasons::NONE, Reasons::with) }
    }

    /// Reads `Last-Event-ID`; one that this node has not given is as none.
    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        let (status, bits) = value.to_str().ok()?.split_once('-')?;
        let reasons = Reasons::from_bits(u32::from_str_radix(bits, 16).ok()?);
        Some(Self { status: Status::parse(status)?, reasons })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.status.as_str(), self.reasons.bits())
    }
}

#[derive(Serialize)]
struct Data {
    id: String,
    status: &'static str,
    expires_at: Timestamp,
    reasons: Reasons,
}

/// The body: what its task has told.
pub(super) struct Stream(mpsc::Receiver<Bytes>);

/// What a stream knows between two events.
struct Following {
    shared: Arc<Shared>,
    id: VerificationId,
    watch: Watch,
    dies_at: SystemTime,
    seen: Option<Seen>,
    _place: Place,
}

impl Stream {
    /// A stream for a browser that has seen `known`. `watch` began before `verification` was read.
    pub(super) fn new(
        shared: Arc<Shared>,
        verification: &Verification,
        watch: Watch,
        place: Place,
        known: Option<Seen>,
    ) -> Self {
        let mut following = Following {
            shared,
            id: verification.id,
            watch,
            dies_at: dies_at(verification),
            seen: known,
            _place: place,
        };
        let mut first = format!("retry: {}\n\n", rand::rng().random_range(RETRY_MILLISECONDS));
        first.extend(following.tell(verification));
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(following.run(sender, first.into()));
        Self(receiver)
    }
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|told| told.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Following {
    /// Tells until the end, until the browser leaves, or until the token dies. A task of its own: the body of a browser
    /// that takes nothing is not asked, and would keep its place for as long as its connection.
    async fn run(mut self, sender: mpsc::Sender<Bytes>, first: Bytes) {
        let life = self.dies_at.duration_since(self.shared.verify.now()).unwrap_or_default();
        let tell = async {
            let mut event = Some(first);
            while let Some(told) = event.take() {
                if sender.send(told).await.is_err() || self.is_over() {
                    return;
                }
                // What follows is read once this has left, so that it is the newest.
                if sender.reserve().await.is_err() {
                    return;
                }
                event = self.next().await;
            }
        };
        tokio::select! {
            () = sender.closed() => {}
            () = sleep(life) => {}
            () = tell => {}
        }
    }

    /// Waits for what is to be sent next. `None` ends the stream: the browser comes back, here or to another node.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut stop = self.shared.stop.clone();
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return None,
                () = self.watch.changed() => {}
                () = sleep(HEARTBEAT) => return Some(Bytes::from_static(b":\n\n")),
            }
            match self.shared.verify.verification_of_client(self.id).await.ok()? {
                Some(row) => {
                    if let Some(event) = self.tell(&row) {
                        return Some(event.into());
                    }
                }
                // Its data was erased.
                None => return Some(self.tell_state(Seen::ERASED, self.dies_at).into()),
            }
        }
    }

    /// The event that tells the present state, and the end where it is one; `None` where the browser has it.
    fn tell(&mut self, verification: &Verification) -> Option<String> {
        let now = Seen::of(verification);
        if self.seen == Some(now) {
            return None;
        }
        Some(self.tell_state(now, verification.expires_at))
    }

    fn tell_state(&mut self, now: Seen, expires_at: SystemTime) -> String {
        self.seen = Some(now);
        let data = Data {
            id: self.id.to_string(),
            status: now.status.as_str(),
            expires_at: Timestamp(expires_at),
            reasons: now.reasons,
        };
        let data = serde_json::to_string(&data).expect("texts always become JSON");
        // `end` has no id: the last one stays that of the state.
        let end = if now.status == Status::Pending { "" } else { "event: end\ndata: {}\n\n" };
        format!("id: {now}\nevent: status\ndata: {data}\n\n{end}")
    }

    fn is_over(&self) -> bool {
        self.seen.is_some_and(|seen| seen.status != Status::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_event_reads_back_and_anything_else_is_none() {
        let reasons = Reasons::of(Reason::CliWithheld).with(Reason::Superseded);
        for status in Status::ALL {
            let seen = Seen { status, reasons };
            assert_eq!(Seen::parse(&HeaderValue::from_str(&seen.to_string()).unwrap()), Some(seen));
        }
        for other in ["", "7", "pending", "pending-", "pending-x", "gone-0", "pending-0-0", "pending-fffffffff"] {
            assert_eq!(Seen::parse(&HeaderValue::from_static(other)), None, "{other}");
        }
        assert_eq!(Seen::parse(&HeaderValue::from_bytes(b"pending-\xff").unwrap()), None);
    }
}
