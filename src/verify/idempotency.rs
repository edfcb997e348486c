//! Requests that may come twice: one runs, the other waits its turn or gets the first one's answer.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Core;
use super::request::{Answer, Idempotency, RequestError};
use crate::store::IdempotencyRecord;

/// The requests that run now.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashSet<Idempotency>>);

/// One running request; another with its key is refused until this is dropped.
pub(super) struct Turn {
    key: Idempotency,
    running: Arc<Running>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.key.without_fingerprint());
    }
}

impl Turn {
    /// What is kept with the request's transaction.
    pub(super) fn record(&self, application: &str, status: u16) -> IdempotencyRecord {
        IdempotencyRecord {
            application: application.to_owned(),
            scope: self.key.scope.clone(),
            key: self.key.key.clone(),
            fingerprint: self.key.fingerprint,
            status,
        }
    }
}

/// What a request with an `Idempotency-Key` meets.
pub(super) enum Begun {
    /// It is the first: it runs.
    Run(Option<Turn>),
    /// It was done before.
    Repeat(Answer),
}

impl Core {
    pub(super) async fn begin(&self, application: &str, key: Option<Idempotency>) -> Result<Begun, RequestError> {
        let Some(key) = key else { return Ok(Begun::Run(None)) };
        if !self.running.0.lock().insert(key.without_fingerprint()) {
            return Err(RequestError::IdempotencyRunning);
        }
        let turn = Turn { key, running: Arc::clone(&self.running) };
        let stored = self.store.answer(application, &turn.key.scope, &turn.key.key).await;
        match stored.map_err(|error| unavailable(&error))? {
            None => Ok(Begun::Run(Some(turn))),
            Some(stored) if stored.fingerprint != turn.key.fingerprint => Err(RequestError::IdempotencyMismatch),
            Some(stored) => Ok(Begun::Repeat(Answer {
                id: stored.verification,
                status: stored.status,
                body: stored.body,
                replayed: true,
                limits: Vec::new(),
            })),
        }
    }
}

impl Idempotency {
    fn without_fingerprint(&self) -> Self {
        Self { scope: self.scope.clone(), key: self.key.clone(), fingerprint: [0; 32] }
    }
}

/// A read that failed: the client may try again, the operator must know.
pub(super) fn unavailable(error: &crate::store::StoreError) -> RequestError {
    tracing::error!(%error, "a read from the store failed");
    RequestError::Unavailable
}
