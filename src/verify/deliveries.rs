//! Deliveries and endpoints as their application sees and steers them.

use std::time::SystemTime;

use tokio::sync::oneshot;

use super::idempotency::unavailable;
use super::request::RequestError;
use super::settings::ApplicationId;
use super::{Core, Verify};
pub use crate::outbox::delivery::{DeliveryId, DeliveryState, EndpointId};
pub use crate::outbox::event::{EventId, EventType};
pub use crate::outbox::notice::{EndpointName, EventName, Tested};
pub use crate::store::{DeliveryFilter, DeliveryRow, EndpointRow, Page};
use crate::store::{Enable, ReplayMany, Replayed, StepError};

/// After so many deliveries a wish to replay a range is answered, with the place to go on.
const REPLAYED: u64 = 10_000;

/// And after so many pieces of some hundred, however few of them fit.
const PIECES: u32 = 50;

/// The wish to have a range of deliveries sent again.
#[derive(Debug, Clone)]
pub struct ReplayWish {
    /// Whose.
    pub application: ApplicationId,
    /// Public id of the endpoint.
    pub endpoint: String,
    /// In this state alone: delivered or exhausted.
    pub state: Option<DeliveryState>,
    /// Of events of this type alone.
    pub kind: Option<EventType>,
    /// Of events from this time on, UTC.
    pub from: SystemTime,
    /// And before this one; now, without it.
    pub until: Option<SystemTime>,
    /// Behind this delivery.
    pub after: Option<DeliveryId>,
    /// Id of the API key that asks.
    pub key: String,
}

/// Why a delivery is not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The application has none with this id.
    #[error("no such delivery")]
    NotFound,
    /// Nothing is sent to its endpoint: the application enables it first.
    #[error("its endpoint is disabled; enable it with POST /v1/endpoints/{}/enable, then replay", .0.public())]
    Disabled(EndpointId),
    /// Its endpoint is gone: the operator configures its address again.
    #[error("its endpoint {} is not configured any more; configure this address again, then replay", .0.shown())]
    Removed(EndpointId),
    /// The delivery to go on behind is not there.
    #[error("no delivery has the id in after; it may have been removed with age")]
    UnknownAfter,
    /// Shared with the other requests.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Verify {
    /// An application's deliveries, the newest first: those made before the one with id `after` alone, at most `limit`.
    pub async fn deliveries(
        &self,
        application: ApplicationId,
        filter: DeliveryFilter,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Page<DeliveryRow>, RequestError> {
        let name = self.core.application_name(application);
        self.core.store.deliveries(&name, filter, after, limit).await.map_err(|error| unavailable(&error))
    }

    /// One of them.
    pub async fn delivery(
        &self,
        application: ApplicationId,
        id: DeliveryId,
    ) -> Result<Option<DeliveryRow>, RequestError> {
        let name = self.core.application_name(application);
        self.core.store.delivery(&name, id).await.map_err(|error| unavailable(&error))
    }

    /// Has one sent again now, with the same id and body and a fresh plan of tries.
    pub async fn replay(
        &self,
        application: ApplicationId,
        id: DeliveryId,
        key: &str,
    ) -> Result<DeliveryRow, ReplayError> {
        let name = self.core.application_name(application);
        let (done, answer) = oneshot::channel();
        self.core.store.replay((&name, id), key, (self.core.clock.utc)(), told(done));
        match answer.await {
            Ok(Ok(Replayed::Due(row))) => Ok(row),
            Ok(Ok(Replayed::Unknown)) => Err(ReplayError::NotFound),
            Ok(Ok(Replayed::Disabled(endpoint))) => Err(ReplayError::Disabled(endpoint)),
            Ok(Ok(Replayed::Removed(endpoint))) => Err(ReplayError::Removed(endpoint)),
            Ok(Err(_)) | Err(_) => Err(RequestError::Unavailable.into()),
        }
    }

    /// Has an endpoint's deliveries of a range sent again, those that were delivered or given up: a piece of it. Gives
    /// how many, and the last that was looked at where there is more.
    pub async fn replay_many(&self, wish: ReplayWish) -> Result<(u64, Option<DeliveryId>), ReplayError> {
        let row = self.endpoint(wish.application, &wish.endpoint).await?.ok_or(ReplayError::NotFound)?;
        let now = (self.core.clock.utc)();
        let mut step = ReplayMany {
            application: self.core.application_name(wish.application),
            endpoint: row.endpoint.clone(),
            state: wish.state,
            kind: wish.kind,
            from: wish.from,
            until: wish.until.unwrap_or(now).min(now),
            after: wish.after,
            key: wish.key,
            at: now,
        };
        let (mut count, mut pieces) = (0, 0);
        loop {
            let (done, answer) = oneshot::channel();
            self.core.store.replay_many(step.clone(), told(done));
            let Ok(Ok(replayed)) = answer.await else { return Err(RequestError::Unavailable.into()) };
            if replayed.refused {
                return Err(ReplayError::Disabled(row.endpoint));
            }
            if replayed.unknown_after {
                return Err(ReplayError::UnknownAfter);
            }
            count += replayed.replayed;
            pieces += 1;
            step.after = replayed.next;
            if replayed.next.is_none() || count >= REPLAYED || pieces >= PIECES {
                return Ok((count, replayed.next));
            }
        }
    }

    /// The endpoints of an application, in the order of its configuration.
    pub async fn endpoints(&self, application: ApplicationId) -> Result<Vec<EndpointRow>, RequestError> {
        let name = self.core.application_name(application);
        self.core.store.endpoints(&name).await.map_err(|error| unavailable(&error))
    }

    /// The endpoint of an application with this public id.
    pub async fn endpoint(&self, application: ApplicationId, id: &str) -> Result<Option<EndpointRow>, RequestError> {
        Ok(self.endpoints(application).await?.into_iter().find(|row| row.endpoint.public() == id))
    }

    /// Enables an endpoint; one that is enabled stays so. Gives it as it stands then, `None` where the application has
    /// none with this public id.
    pub async fn enable(
        &self,
        application: ApplicationId,
        id: &str,
        key: &str,
    ) -> Result<Option<EndpointRow>, RequestError> {
        let Some(row) = self.endpoint(application, id).await? else { return Ok(None) };
        let (done, answer) = oneshot::channel();
        let name = self.core.application_name(application);
        let at = (self.core.clock.utc)();
        self.core
            .store
            .enable(Enable { application: name, endpoint: row.endpoint, key: key.to_owned(), at }, told(done));
        answer.await.unwrap_or(Err(StepError::Full)).map_err(|_| RequestError::Unavailable)?;
        self.endpoint(application, id).await
    }
}

/// Passes an answer on, which the client may have left before.
fn told<T>(done: oneshot::Sender<T>) -> impl FnOnce(T) {
    |answer| drop(done.send(answer))
}

impl Core {
    fn application_name(&self, id: ApplicationId) -> String {
        self.current.load().settings.application(id).name.clone()
    }
}
