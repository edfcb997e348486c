//! The application: create, look up, cancel and expire a verification; take a call; commit a match.
//!
//! Owns the order of things: memory elects, the row confirms, the answer follows the commit. Does not see SIP, HTTP or
//! sockets. Invariant: one INVITE verifies at most one verification, and a verification has one terminal state.

pub mod request;
pub mod settings;

use request::{Answer, CancelError, CreateError, Idempotency, NewVerification, RequestError};
use settings::ApplicationId;

use crate::matcher::verification::{Verification, VerificationId};

/// The application's facade. Cheap to share behind an `Arc`.
pub struct Verify {}

impl Verify {
    /// Begins a verification. The pair is durable when this returns.
    pub async fn create(
        &self,
        _application: ApplicationId,
        _wish: NewVerification,
        _idempotency: Option<Idempotency>,
    ) -> Result<Answer, CreateError> {
        todo!()
    }

    /// Reads a verification of this application.
    pub async fn verification(
        &self,
        _application: ApplicationId,
        _id: VerificationId,
    ) -> Result<Option<Verification>, RequestError> {
        todo!()
    }

    /// Ends a pending verification.
    pub async fn cancel(
        &self,
        _application: ApplicationId,
        _id: VerificationId,
        _idempotency: Option<Idempotency>,
    ) -> Result<Answer, CancelError> {
        todo!()
    }
}
