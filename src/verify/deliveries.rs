//! Deliveries and endpoints as their application sees and steers them.

use tokio::sync::oneshot;

use super::idempotency::unavailable;
use super::request::RequestError;
use super::settings::ApplicationId;
use super::{Core, Verify};
pub use crate::outbox::delivery::{DeliveryId, DeliveryState, EndpointId};
pub use crate::outbox::event::{EventId, EventType};
pub use crate::outbox::notice::{EndpointName, EventName};
pub use crate::store::{DeliveryFilter, DeliveryRow, EndpointRow, Page};
use crate::store::{Replayed, StepError};

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
    pub async fn replay(&self, application: ApplicationId, id: DeliveryId) -> Result<DeliveryRow, ReplayError> {
        let name = self.core.application_name(application);
        let (done, answer) = oneshot::channel();
        self.core.store.replay(&name, id, (self.core.clock.utc)(), told(done));
        match answer.await {
            Ok(Ok(Replayed::Due(row))) => Ok(row),
            Ok(Ok(Replayed::Unknown)) => Err(ReplayError::NotFound),
            Ok(Ok(Replayed::Disabled(endpoint))) => Err(ReplayError::Disabled(endpoint)),
            Ok(Ok(Replayed::Removed(endpoint))) => Err(ReplayError::Removed(endpoint)),
            Ok(Err(_)) | Err(_) => Err(RequestError::Unavailable.into()),
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
    pub async fn enable(&self, application: ApplicationId, id: &str) -> Result<Option<EndpointRow>, RequestError> {
        let Some(row) = self.endpoint(application, id).await? else { return Ok(None) };
        let (done, answer) = oneshot::channel();
        self.core.store.enable(row.endpoint, told(done));
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
