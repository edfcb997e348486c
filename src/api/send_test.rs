//! A test to a webhook endpoint: how the API has it sent, and how often it may be.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::verify::deliveries::{EndpointId, Tested};
use crate::verify::request::{CreateError, LimitState};
use crate::verify::settings::ApplicationId;

/// Tests of an application, by the minute.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("30 is not zero");

/// Sends a test; `None` where the endpoint is not configured any more. Runs to its end.
pub type SendTest = Box<dyn Fn(EndpointId) -> Pin<Box<dyn Future<Output = Option<Tested>> + Send>> + Send + Sync>;

/// What tests need.
pub(super) struct Tests {
    pub(super) send: SendTest,
    rates: DefaultKeyedRateLimiter<u16>,
}

impl Tests {
    pub(super) fn new(send: SendTest) -> Self {
        Self { send, rates: RateLimiter::keyed(Quota::per_minute(PER_MINUTE)) }
    }

    pub(super) fn count(&self, application: ApplicationId) -> Result<(), CreateError> {
        self.rates.check_key(&application.0).map_err(|until| {
            let (name, quota, window) = ("endpoint_tests", PER_MINUTE.get(), Duration::from_mins(1));
            let reset = until.wait_time_from(DefaultClock::default().now());
            let exceeded = LimitState { name, quota, window, remaining: 0, reset };
            CreateError::RateLimited { limits: vec![exceeded.clone()], exceeded }
        })
    }
}
