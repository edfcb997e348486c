//! Reads of an application's own: its verifications, their calls, its events.

use super::Verify;
use super::idempotency::unavailable;
use super::request::RequestError;
use super::settings::ApplicationId;
use crate::matcher::verification::{Verification, VerificationId};
pub use crate::outbox::event::{EventType, listed};
pub use crate::store::{CallRow, EventRow, Page, VerificationFilter};

/// Why there is no page. The API client acts on each.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// This application has no verification with that id.
    #[error("no such verification")]
    NotFound,
    /// The entry to go on behind is not there, or not any more.
    #[error("the entry to go on behind is not kept")]
    UnknownCursor,
    /// Shared with the other requests.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Verify {
    /// Verifications, the newest first, at most `limit`, behind `after`.
    ///
    /// # Errors
    /// `ListError::UnknownCursor` or `Request`.
    pub async fn verifications(
        &self,
        application: ApplicationId,
        filter: VerificationFilter,
        after: Option<VerificationId>,
        limit: u32,
    ) -> Result<Page<Verification>, ListError> {
        let name = self.application_name(application);
        let page = self.core.store.verifications(&name, filter, after, limit).await;
        page.map_err(|error| unavailable(&error))?.ok_or(ListError::UnknownCursor)
    }

    /// Calls that named the pair of a verification, the newest first, at most `limit`, behind the id `after`.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn calls(
        &self,
        application: ApplicationId,
        verification: VerificationId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<CallRow>, ListError> {
        self.verification(application, verification).await?.ok_or(ListError::NotFound)?;
        let page = self.core.store.calls(verification, after, limit).await;
        page.map_err(|error| unavailable(&error))?.ok_or(ListError::UnknownCursor)
    }

    /// Events in the order of their commits, at most `limit`, behind the id `after`.
    ///
    /// # Errors
    /// `ListError::UnknownCursor` or `Request`.
    pub async fn events(
        &self,
        application: ApplicationId,
        kind: Option<EventType>,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<EventRow>, ListError> {
        let name = self.application_name(application);
        let page = self.core.store.events(&name, kind, after, limit).await;
        page.map_err(|error| unavailable(&error))?.ok_or(ListError::UnknownCursor)
    }

    fn application_name(&self, application: ApplicationId) -> String {
        self.core.current.load().settings.application(application).name.clone()
    }
}
