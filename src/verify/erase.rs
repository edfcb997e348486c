//! Erasing a person's data, while the node runs: memory lets go first, then the rows go, then the log of the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::idempotency::unavailable;
use super::request::RequestError;
use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::e164::E164;
use crate::matcher::index::EndMet;
use crate::matcher::pair::{PairKey, Pending};
use crate::matcher::verification::{Status, VerificationId};
pub use crate::store::Erased;
use crate::store::{Erase, StepError};

/// Verifications, or calls, of one transaction.
const CHUNK: usize = 50;

/// Looks for what names the phone. What begins after the first of them may stay, but little can come in between.
const LOOKS: usize = 3;

/// How often the log of the database is tried to be emptied, and the pause in between.
const LOG_TRIES: u32 = 50;
const LOG_PAUSE: Duration = Duration::from_millis(100);

/// Why the operator's wish was not done.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is none of this name, nor was there.
    #[error("no application has this name, in the configuration or in what is stored")]
    NoApplication,
    /// The store.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What an erasure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// How much.
    pub erased: Erased,
    /// Whether the write-ahead log, in which it stood, is empty as well.
    pub log_emptied: bool,
}

impl Verify {
    /// Erases what an application holds of this phone. `key` is the API key that asks.
    pub async fn erase(&self, application: ApplicationId, phone: E164, key: &str) -> Result<Erasure, RequestError> {
        let name = self.core.current.load().settings.application(application).name.clone();
        let erased = self.core.erase(&name, phone, Some(key)).await?;
        Ok(self.core.empty_log(erased).await)
    }

    /// Erases what this application holds of this phone, or what every one does, by the operator's wish.
    pub async fn erase_for_operator(&self, application: Option<&str>, phone: E164) -> Result<Erasure, EraseError> {
        let names = match application {
            Some(name) => {
                let configured = self.core.current.load().settings.applications.iter().any(|one| one.name == name);
                let known = self.core.store.applications().await.map_err(|error| unavailable(&error))?;
                if !configured && known.iter().all(|one| one != name) {
                    return Err(EraseError::NoApplication);
                }
                vec![name.to_owned()]
            }
            None => self.core.store.applications().await.map_err(|error| unavailable(&error))?,
        };
        let mut erased = Erased::default();
        for name in names {
            erased.add(self.core.erase(&name, phone, None).await?);
        }
        Ok(self.core.empty_log(erased).await)
    }
}

impl Core {
    async fn erase(
        self: &Arc<Self>,
        application: &str,
        phone: E164,
        key: Option<&str>,
    ) -> Result<Erased, RequestError> {
        let mut erased = Erased::default();
        for look in 0..LOOKS {
            let traces = self.store.traces(application, phone).await.map_err(|error| unavailable(&error))?;
            // Nothing found at all is worth an entry as well: somebody asked.
            if traces.verifications.is_empty() && traces.calls.is_empty() && look > 0 {
                break;
            }
            let mut calls = traces.calls;
            let chunks: Vec<&[_]> =
                if traces.verifications.is_empty() { vec![&[]] } else { traces.verifications.chunks(CHUNK).collect() };
            for chunk in chunks {
                let of_chunk = calls.split_off(calls.len().saturating_sub(CHUNK));
                erased.add(self.erase_chunk(application, phone, key, chunk, of_chunk).await?);
            }
            while !calls.is_empty() {
                let of_chunk = calls.split_off(calls.len().saturating_sub(CHUNK));
                erased.add(self.erase_chunk(application, phone, key, &[], of_chunk).await?);
            }
        }
        Ok(erased)
    }

    async fn erase_chunk(
        self: &Arc<Self>,
        application: &str,
        phone: E164,
        key: Option<&str>,
        verifications: &[(VerificationId, Option<E164>)],
        calls: Vec<String>,
    ) -> Result<Erased, RequestError> {
        let mut ending = Vec::new();
        for (id, number) in verifications {
            let Some(number) = number else { continue };
            if let Some(pending) = self.begin_erasing(self.pair(phone, *number), *id).await {
                ending.push(pending);
            }
        }
        let step = Erase {
            application: application.to_owned(),
            verifications: verifications.iter().map(|(id, _)| *id).collect(),
            calls,
            key: key.map(str::to_owned),
            at: (self.clock.utc)(),
        };
        let (done, answer) = oneshot::channel();
        let keeper = Arc::clone(self);
        self.store.erase(step, move |result: Result<Erased, StepError>| {
            let ended = result.map(|_| None);
            for (key, pending) in ending {
                keeper.ended(key, pending, Some(phone), Status::Canceled, &ended);
            }
            // Whoever asked may have gone; what was erased is erased all the same.
            let _ = done.send(result);
        });
        answer.await.ok().and_then(Result::ok).ok_or(RequestError::Unavailable)
    }

    /// Begins to end a pending verification; `None` where it has ended by itself, or is not in memory.
    async fn begin_erasing(&self, key: PairKey, id: VerificationId) -> Option<(PairKey, Pending)> {
        loop {
            match self.begin_end(key, id).await {
                EndMet::Begun(pending) => return Some((key, pending)),
                EndMet::Busy => {}
                EndMet::Gone => return None,
            }
        }
    }

    async fn empty_log(&self, erased: Erased) -> Erasure {
        for _ in 0..LOG_TRIES {
            let store = self.store.clone();
            if tokio::task::spawn_blocking(move || store.truncate_log()).await.unwrap_or(false) {
                return Erasure { erased, log_emptied: true };
            }
            sleep(LOG_PAUSE).await;
        }
        Erasure { erased, log_emptied: false }
    }
}
