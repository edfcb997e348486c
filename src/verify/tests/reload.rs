//! Settings that are replaced while verifications are pending.

use super::*;

const OTHER: TrunkId = TrunkId(1);

#[tokio::test]
async fn a_removed_number_matches_what_is_pending_on_it_and_is_not_shown_any_more() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.reload(|settings| settings.numbers = numbers(500, &[TrunkId(0)]));
    assert!(rig.verify.own_numbers().has(number()), "a call for it is still read");
    let other = NewVerification { phone: "+966500000777".parse().unwrap(), ..wish() };
    let next = rig.create(other).await.unwrap();
    assert_ne!(rig.get(next).await.number, number());
    assert_eq!(rig.call(call(1)).await, Some(Outcome::Durable));
    assert_eq!(rig.get(id).await.status, Status::Verified);
    // It rests as it would have, also when it comes back at once.
    rig.reload(|settings| settings.numbers = numbers(0, &[TrunkId(0)]));
    assert!(matches!(rig.create(wish()).await, Err(CreateError::PhoneBusy { .. })));
    rig.pass(Duration::from_secs(61));
    rig.create(wish()).await.unwrap();
}

#[tokio::test]
async fn a_removed_number_is_unknown_once_its_windows_are_over() {
    let rig = Rig::new(clock!(), 1);
    rig.create(wish()).await.unwrap();
    rig.reload(|settings| settings.numbers = numbers(500, &[TrunkId(0)]));
    rig.pass(Duration::from_mins(7));
    assert!(!rig.verify.own_numbers().has(number()));
    assert_eq!(rig.call(call(1)).await, None);
}

#[tokio::test]
async fn a_number_that_moved_to_another_trunk_takes_calls_of_the_old_one_for_older_verifications_alone() {
    let mut rig = Rig::new(clock!(), 1);
    let older = rig.create(wish()).await.unwrap();
    rig.reload(|settings| settings.numbers = numbers(0, &[OTHER]));
    let phone = "+966500000777".parse().unwrap();
    let newer = rig.create(NewVerification { phone, ..wish() }).await.unwrap();
    let by_old_trunk = CallEvent { caller: Some(phone), ..call(1) };
    assert_eq!(rig.call(by_old_trunk).await, None);
    assert_eq!(rig.events().await, [EventType::Created, EventType::Created, EventType::CallReceived]);
    let seen = rig.get(newer).await;
    assert_eq!((seen.status, seen.reasons), (Status::Pending, Reasons::of(Reason::WrongTrunk)));
    assert_eq!(rig.call(call(2)).await, Some(Outcome::Durable), "the older one goes by its own settings");
    assert_eq!(rig.get(older).await.status, Status::Verified);
    let by_new_trunk = CallEvent { caller: Some(phone), trunk: OTHER, ..call(3) };
    assert_eq!(rig.call(by_new_trunk).await, Some(Outcome::Durable));
}

#[tokio::test]
async fn a_test_call_proves_what_was_begun_on_a_number_that_has_moved_to_another_application() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.reload(|settings| {
        let moved = NumberRange { applications: vec![ApplicationId(1)], ..settings.numbers.ranges()[0].clone() };
        settings.numbers = Numbers::new(vec![moved]);
    });
    let test = |key, only| CallEvent { only: Some(only), ..call(key) };
    assert_eq!(rig.call(test(1, 1)).await, None, "the number is the other's, the verification is not");
    assert_eq!(rig.call(test(2, 0)).await, Some(Outcome::Durable));
    assert_eq!(rig.get(id).await.status, Status::Verified);
    let stranger = CallEvent { caller: "+966500000777".parse().ok(), ..test(3, 0) };
    let judged = rig.verify.take_call(&stranger, || unreachable!("it does not wait"), || Held::Kept);
    assert_eq!(judged.outcome, CallOutcome::UnknownNumber, "beyond that it is nothing to the application");
}

#[tokio::test]
async fn what_is_pending_keeps_its_window_and_its_level() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.reload(|settings| {
        settings.applications[0].minimum_assurance = Assurance::A;
        settings.applications[0].ttl = Duration::from_mins(1);
    });
    rig.pass(Duration::from_secs(110));
    assert_eq!(rig.call(CallEvent { assurance: Assurance::C, ..call(1) }).await, Some(Outcome::Durable));
    assert_eq!(rig.get(id).await.status, Status::Verified);
}

#[tokio::test]
async fn limits_that_change_count_what_is_pending() {
    let rig = Rig::new(clock!(), 9);
    let id = rig.create(wish()).await.unwrap();
    rig.reload(|settings| settings.applications[0].limits.pending_per_phone = 1);
    assert!(matches!(rig.create(wish()).await, Err(CreateError::TooManyPending { limit: 1, .. })));
    rig.verify.cancel(DEMO, id, None).await.unwrap();
    rig.create(wish()).await.unwrap();
}

#[tokio::test]
async fn what_is_pending_for_a_removed_application_is_canceled_and_nothing_begins_for_it() {
    let mut rig = Rig::new(clock!(), 9);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let verify = rig.verify.clone();
    let work = tokio::spawn(async move { verify.run_retirement(stopped).await });
    let ids = [rig.create(wish()).await.unwrap(), rig.create(wish()).await.unwrap()];
    rig.reload(retire);
    for id in ids {
        rig.until(async || rig.get(id).await.status == Status::Canceled).await;
    }
    assert!(matches!(rig.create(wish()).await, Err(CreateError::NoNumber)));
    // It comes back by its name, and with it its place.
    rig.reload(|settings| {
        settings.retired.clear();
        settings.numbers = numbers(0, &[TrunkId(0)]);
    });
    let later = "+966500000778".parse().unwrap();
    let id = rig.create(NewVerification { phone: later, ..wish() }).await.unwrap();
    assert_eq!(rig.get(id).await.status, Status::Pending);
    let ended = [EventType::Created, EventType::Created, EventType::Canceled, EventType::Canceled, EventType::Created];
    assert_eq!(rig.events().await, ended);
    stop.send(true).unwrap();
    within(work).await.unwrap();
}

#[tokio::test]
async fn what_was_being_created_while_its_application_went_is_canceled() {
    let rig = Rig::new(clock!(), 9);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let verify = rig.verify.clone();
    tokio::spawn(async move { verify.run_retirement(stopped).await });
    let mut ids = Vec::new();
    // The reload meets the creation at every stage, as it happens.
    for round in 0..40u64 {
        let phone = E164::from_u64(966_500_100_000 + round).unwrap();
        let verify = rig.verify.clone();
        let create =
            tokio::spawn(async move { verify.create(DEMO, NewVerification { phone, ..wish() }, None, client).await });
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        rig.reload(retire);
        if let Ok(answer) = within(create).await.unwrap() {
            ids.push(answer.id);
        }
        for id in &ids {
            rig.until(async || rig.get(*id).await.status == Status::Canceled).await;
        }
        rig.reload(|settings| {
            settings.retired.clear();
            settings.numbers = numbers(0, &[TrunkId(0)]);
        });
    }
}

fn retire(settings: &mut Settings) {
    settings.retired.insert(DEMO);
    settings.numbers = Numbers::default();
}

/// One number, or nine from another one on.
fn numbers(from: u64, trunks: &[TrunkId]) -> Numbers {
    Numbers::new(vec![NumberRange {
        first: number().offset(from).unwrap(),
        count: if from == 0 { 1 } else { 9 },
        trunks: trunks.to_vec(),
        applications: vec![DEMO],
        cool_down: Duration::from_mins(1),
    }])
}

impl Rig {
    fn reload(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.verify.core.current.get().settings.clone();
        settings.trunks = vec!["local".to_owned(), "other".to_owned()];
        change(&mut settings);
        let next = self.verify.prepare_settings(settings).unwrap();
        self.verify.replace_settings(next);
    }
}
