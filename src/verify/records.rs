//! What is kept for others to rely on: receipts of what ended, and the audit log with its signatures.
//!
//! Owns what goes into the log besides outcomes, and when it is signed. Outcomes are the store's, in the transaction of
//! the end itself. Invariant: every use of an API key is in the log a minute later, or at the node's end in order.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use super::idempotency::unavailable;
use super::request::RequestError;
use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::audit::checkpoint;
pub use crate::audit::kind::Kind;
use crate::matcher::verification::{Status, Timestamp, VerificationId};
use crate::receipt::keys::Keys;
use crate::receipt::statement;
pub use crate::receipt::statement::Receipt;
use crate::store::{Audit, Checkpoint};

/// Entries after which the log is signed, at the latest with the look that follows.
const SIGNED_AFTER: u64 = 2_000;

/// Entries that wait for a store that takes none.
const UNWRITTEN: usize = 10_000;

/// How long an entry is not signed at most.
pub const SIGNED_WITHIN: Duration = Duration::from_mins(1);

/// Who signs.
#[derive(Debug)]
pub struct Signing {
    /// The keys, of which the last one signs.
    pub keys: Keys,
    /// Name of the node, or where its API is reached from outside: the issuer of what is signed.
    pub issuer: String,
}

/// Why there is no receipt. The API client acts on it.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The application has no such verification, and nothing is recorded of one.
    #[error("no such verification")]
    NotFound,
    /// It has not ended.
    #[error("the verification is pending")]
    Pending,
    /// It ended before there were receipts, or longer ago than the audit log goes back.
    #[error("no outcome is recorded of this verification")]
    NotRecorded,
    /// The phone was asked for, and it is not kept any more.
    #[error("the phone of this verification is not kept any more")]
    PhoneGone,
    /// Shared with the other requests.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// How often API keys were used since that was last written down.
#[derive(Debug, Default)]
pub(super) struct KeyUses(Mutex<HashMap<(String, String), Uses>>);

/// Of one key.
#[derive(Debug)]
struct Uses {
    since: SystemTime,
    /// By method and path. Both are the node's own words, so there are few.
    requests: BTreeMap<String, u64>,
}

impl Verify {
    /// The receipt of a verification that has ended. `with_phone` discloses the phone.
    pub async fn receipt(
        &self,
        application: ApplicationId,
        id: VerificationId,
        with_phone: bool,
    ) -> Result<Receipt, ReceiptError> {
        let core = &self.core;
        let row = self.verification(application, id).await?;
        if row.as_ref().is_some_and(|row| row.status == Status::Pending) {
            return Err(ReceiptError::Pending);
        }
        let name = core.current.load().settings.application(application).name.clone();
        let recorded = core.store.recorded(&name, id).await.map_err(|error| unavailable(&error))?;
        let recorded = match (recorded, &row) {
            (Some(recorded), _) => recorded,
            (None, Some(_)) => return Err(ReceiptError::NotRecorded),
            (None, None) => return Err(ReceiptError::NotFound),
        };
        let disclosed = row.and_then(|row| Some((row.phone, row.phone_key?))).filter(|_| with_phone);
        if with_phone && disclosed.is_none() {
            return Err(ReceiptError::PhoneGone);
        }
        let signing = core.signing.load();
        Ok(statement::sign(&signing.keys, &signing.issuer, &id.to_string(), &recorded, disclosed))
    }

    /// The public keys, as a JSON Web Key set.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.core.signing.load().keys.public().to_jwks()
    }

    /// Has another key or name sign from now on. Whether the key is another one.
    #[must_use]
    pub fn replace_signing(&self, signing: Signing) -> bool {
        let before = self.core.signing.swap(Arc::new(signing));
        before.keys.kid() != self.core.signing.load().keys.kid()
    }

    /// Name of the key that signs.
    #[must_use]
    pub fn signing_key(&self) -> String {
        self.core.signing.load().keys.kid().to_owned()
    }

    /// Notes a use of an API key. `path` is the pattern of the path, not the client's text.
    pub fn note_key_use(&self, application: &str, key: &str, method: &str, path: &str) {
        let now = (self.core.clock.utc)();
        let mut uses = self.core.key_uses.0.lock();
        let of_key = uses
            .entry((application.to_owned(), key.to_owned()))
            .or_insert_with(|| Uses { since: now, requests: BTreeMap::new() });
        *of_key.requests.entry(format!("{method} {path}")).or_default() += 1;
    }

    /// Puts an entry into the audit log; when this returns it is on disk, or the store takes none.
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub async fn audit(&self, kind: Kind, data: &(impl Serialize + Sync)) -> Result<(), RequestError> {
        let data = serde_json::to_string(data).expect("texts always become JSON");
        self.core.audit(kind, data).await
    }

    /// As [`Verify::audit`], without a wait. What the store does not take now is tried again by
    /// [`Verify::audit_again`].
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub fn audit_later(&self, kind: Kind, data: &impl Serialize) {
        let data = serde_json::to_string(data).expect("texts always become JSON");
        self.core.audit_later(Audit { kind, at: (self.core.clock.utc)(), data });
    }

    /// Tries once more to write down what the store did not take.
    pub fn audit_again(&self) {
        // Out of the lock: one that is refused at once comes back on this thread.
        let entries = mem::take(&mut *self.core.unwritten.lock());
        for entry in entries {
            self.core.audit_later(entry);
        }
    }

    /// Writes down how keys were used. What the store does not take is tried again the next time.
    pub async fn audit_key_uses(&self) {
        let uses = mem::take(&mut *self.core.key_uses.0.lock());
        let until = (self.core.clock.utc)();
        for ((application, key), Uses { since, requests }) in uses {
            let data = KeyUsed {
                application: &application,
                key: &key,
                from: Timestamp(since),
                until: Timestamp(until),
                requests: &requests,
            };
            if self.audit(Kind::KeyUsed, &data).await.is_err() {
                let mut later = self.core.key_uses.0.lock();
                let kept = later.entry((application, key)).or_insert_with(|| Uses { since, requests: BTreeMap::new() });
                kept.since = kept.since.min(since);
                for (request, count) in requests {
                    *kept.requests.entry(request).or_default() += count;
                }
            }
        }
    }

    /// Signs how far the audit log has come, where enough was added to it since, or at any rate.
    ///
    /// # Errors
    /// `RequestError::Unavailable`.
    pub async fn sign_audit(&self, at_any_rate: bool) -> Result<(), RequestError> {
        let core = &self.core;
        let head = core.store.audit_head().await.map_err(|error| unavailable(&error))?;
        let unsigned = head.chain.seq - head.signed.min(head.chain.seq);
        if unsigned == 0 || !at_any_rate && unsigned < SIGNED_AFTER {
            return Ok(());
        }
        let (signing, at) = (core.signing.load_full(), (core.clock.utc)());
        let jws = checkpoint::sign(&signing.keys, &signing.issuer, &head.chain, at);
        let (done, stored) = oneshot::channel();
        core.store.checkpoint(Checkpoint { seq: head.chain.seq, at, jws }, |result| _ = done.send(result));
        match stored.await {
            Ok(Ok(())) => {
                tracing::info!(seq = head.chain.seq, hash = hex::encode(head.chain.hash), "audit log signed");
                Ok(())
            }
            _ => Err(RequestError::Unavailable),
        }
    }
}

impl Core {
    fn audit_later(self: &Arc<Self>, entry: Audit) {
        let (keeper, kept) = (Arc::clone(self), entry.clone());
        self.store.audit(entry, move |result| {
            if result.is_err() {
                let mut unwritten = keeper.unwritten.lock();
                if unwritten.len() < UNWRITTEN {
                    unwritten.push(kept);
                } else {
                    tracing::error!(kind = kept.kind.as_str(), "an entry of the audit log is lost");
                }
            }
        });
    }

    pub(super) async fn audit(&self, kind: Kind, data: String) -> Result<(), RequestError> {
        let (done, stored) = oneshot::channel();
        let entry = Audit { kind, at: (self.clock.utc)(), data };
        self.store.audit(entry, |result| _ = done.send(result));
        stored.await.ok().and_then(Result::ok).ok_or(RequestError::Unavailable)
    }
}

#[derive(Serialize)]
struct KeyUsed<'a> {
    application: &'a str,
    key: &'a str,
    from: Timestamp,
    until: Timestamp,
    requests: &'a BTreeMap<String, u64>,
}
