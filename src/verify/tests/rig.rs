//! The application over a store of its own, with one number range and a clock that the test moves.

use super::*;
use crate::verify::records::Signing;

/// The application with one number range, its store and its clock.
pub(super) struct Rig {
    pub(super) verify: Verify,
    pub(super) store: Store,
    pub(super) ready: mpsc::Receiver<Due>,
    pub(super) now: &'static AtomicU64,
    pub(super) folder: TempDir,
}

impl Rig {
    pub(super) fn new(clock: (&'static AtomicU64, Clock), numbers: u32) -> Self {
        Self::over(tempfile::tempdir().unwrap(), clock, numbers, Duration::from_mins(1))
    }

    pub(super) fn over(
        folder: TempDir,
        (now, clock): (&'static AtomicU64, Clock),
        numbers: u32,
        cool_down: Duration,
    ) -> Self {
        let settings = settings(numbers, cool_down);
        let subscription = Subscription {
            application: "demo".to_owned(),
            endpoint: EndpointId("demo".into()),
            events: EventType::ALL.to_vec(),
        };
        let path = folder.path().join("test.db");
        let at = crate::store::Settings { path, retention: crate::store::Retention::of_all(Duration::from_hours(24)) };
        let (offer, ready) = mpsc::channel(64);
        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let subscriptions = Subscriptions(vec![subscription]);
        let store = Store::open(&at, subscriptions, metrics.clone(), Arc::clone(&health), offer).unwrap();
        let recent = Arc::new(RecentCalls::new(1024));
        let verify = Verify::new(settings, [7; 16], clock, store.clone(), recent, signing(), metrics, health);
        Self { verify, store, ready, now, folder }
    }

    pub(super) async fn create(&self, wish: NewVerification) -> Result<VerificationId, CreateError> {
        Ok(within(self.verify.create(DEMO, wish, None, client)).await?.id)
    }

    pub(super) async fn get(&self, id: VerificationId) -> Verification {
        self.verify.verification(DEMO, id).await.unwrap().unwrap()
    }

    /// The number of the phone's newest verification.
    pub(super) async fn number(&self) -> E164 {
        self.store.numbers_used("demo", PHONE.parse().unwrap(), 1).await.unwrap()[0]
    }

    /// Lets a call in; how its wait ended, or `None` where it was refused at once.
    pub(super) async fn call(&self, event: CallEvent) -> Option<Outcome> {
        let (finish, mut finished) = mpsc::channel(1);
        match self.verify.take_call(&event, || Notify { ticket: 1, to: finish }, || Held::Kept).taken {
            Taken::Refuse => None,
            Taken::Wait => Some(within(finished.recv()).await.unwrap().1),
            Taken::Unavailable => panic!("there is room"),
        }
    }

    /// The types of the events so far, in their order. A note on a verification of its own tells that all are there:
    /// notes are the last that the store takes, in their own order.
    pub(super) async fn events(&mut self) -> Vec<EventType> {
        let phone = "+966500000999".parse().unwrap();
        let marker = self.create(NewVerification { phone, ..wish() }).await.unwrap();
        let weak = CallEvent { caller: Some(phone), assurance: Assurance::D, ..call(u64::MAX) };
        let weak = CallEvent { dialled: Some(self.get(marker).await.number), ..weak };
        assert_eq!(self.call(weak).await, None);
        let mut events = Vec::new();
        loop {
            let due = within(self.ready.recv()).await.unwrap();
            match due.kind {
                EventType::CallReceived if due.body.contains(&marker.to_string()) => return events,
                // About no verification.
                EventType::CallUnmatched | EventType::NumberExhausted => {}
                kind if !due.body.contains(&marker.to_string()) => events.push(kind),
                _ => {}
            }
        }
    }

    pub(super) fn pass(&self, time: Duration) {
        self.now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(super) async fn until(&self, condition: impl AsyncFn() -> bool) {
        within(async {
            while !condition().await {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// One application, one trunk, so many numbers.
pub(super) fn settings(numbers: u32, cool_down: Duration) -> Settings {
    Settings {
        applications: vec![Application {
            name: "demo".to_owned(),
            live: false,
            ttl: Duration::from_mins(2),
            minimum_assurance: Assurance::C,
            limits: Limits { pending_per_phone: 2, ..Limits::default() },
        }],
        numbers: Numbers::new(vec![NumberRange {
            first: number(),
            count: numbers,
            trunks: vec![TrunkId(0)],
            applications: vec![DEMO],
            cool_down,
        }]),
        trunks: vec!["local".to_owned(), "sandbox".to_owned()],
        ..Settings::default()
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("what must come comes in time")
}

pub(super) fn number() -> E164 {
    "+966115000000".parse().unwrap()
}

pub(super) fn wish() -> NewVerification {
    NewVerification {
        phone: PHONE.parse().unwrap(),
        ttl: None,
        purpose: None,
        consent: None,
        reference: None,
        metadata: std::collections::BTreeMap::new(),
        minimum_assurance: None,
        locale: None,
        client_ip: None,
        client_device_id: None,
        replaces: None,
        api_key: None,
    }
}

pub(super) fn client(id: VerificationId) -> ClientAccess {
    ClientAccess { token: format!("rpc_{}", id.0), events_url: format!("/events/{}", id.0) }
}

pub(super) fn call(key: u64) -> CallEvent {
    CallEvent {
        key: CallKey(key),
        trunk: TrunkId(0),
        only: None,
        caller: PHONE.parse().ok(),
        presented: None,
        source: Some(CallerSource::Pai),
        presentation: Presentation::Allowed,
        dialled: Some(number()),
        assurance: Assurance::B,
        reasons: Reasons::NONE,
        evidence: crate::call::evidence::Evidence::default(),
        received_at: UNIX_EPOCH + Duration::from_secs(1_790_001_003),
    }
}

pub(super) fn signing() -> Signing {
    Signing { keys: crate::receipt::keys::Keys::from_seed(&[1; 32]), issuer: "edge-1".to_owned() }
}
