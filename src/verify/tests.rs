//! The application over a real store, on a clock that the test moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::claims::{Notify, Outcome};
use super::request::{CancelError, CreateError, Idempotency, NewVerification};
use super::script::{Script, ScriptedCall};
use super::settings::{Application, Limits, NumberRange, Numbers};
use super::*;
use crate::call::assurance::{Assurance, Reason, Reasons};
use crate::call::event::{CallEvent, CallKey, CallerSource, Presentation, TrunkId};
use crate::matcher::boot_time::BootTime;
use crate::matcher::client_access::ClientAccess;
use crate::matcher::verification::Status;
use crate::outbox::delivery::{Due, EndpointId, Subscription, Subscriptions};
use crate::outbox::event::EventType;

const DEMO: ApplicationId = ApplicationId(0);
const PHONE: &str = "+966500000123";

/// A clock of the test's own: a static for each place that names it.
macro_rules! clock {
    () => {{
        static NOW: AtomicU64 = AtomicU64::new(1_000_000);
        fn boot() -> BootTime {
            BootTime(NOW.load(Ordering::Relaxed))
        }
        fn utc() -> std::time::SystemTime {
            UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + NOW.load(Ordering::Relaxed))
        }
        (&NOW, Clock { boot, utc })
    }};
}

mod model;
// Behind the macro that it uses.
mod reload;
mod rig;

use rig::{Rig, call, client, number, wish, within};

#[tokio::test]
async fn a_call_verifies_and_the_pair_then_rests() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    assert_eq!(rig.call(call(1)).await, Some(Outcome::Durable));
    let verification = rig.get(id).await;
    assert_eq!((verification.status, verification.assurance), (Status::Verified, Some(Assurance::B)));
    assert_eq!(rig.events().await, [EventType::Created, EventType::Verified]);
    assert!(matches!(rig.create(wish()).await, Err(CreateError::PhoneBusy { .. })));
    rig.pass(Duration::from_secs(61));
    rig.create(wish()).await.unwrap();
}

#[tokio::test]
async fn one_of_many_calls_on_many_threads_verifies_and_all_are_answered() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    let (finish, mut finished) = mpsc::channel(64);
    let waiting = std::thread::scope(|scope| {
        let takes: Vec<_> = (0..8u64)
            .map(|key| {
                let (verify, finish) = (rig.verify.clone(), finish.clone());
                scope.spawn(move || {
                    verify.take_call(&call(key), || Notify { ticket: key.into(), to: finish }, || Held::Kept).taken
                })
            })
            .collect();
        takes.into_iter().map(|take| take.join().unwrap()).filter(|taken| *taken == Taken::Wait).count()
    });
    for _ in 0..waiting {
        assert_eq!(within(finished.recv()).await.unwrap().1, Outcome::Durable);
    }
    assert!(waiting >= 1);
    assert_eq!(rig.get(id).await.status, Status::Verified);
    assert_eq!(rig.events().await, [EventType::Created, EventType::Verified]);
}

#[tokio::test]
async fn a_call_that_claimed_once_claims_nothing_more() {
    let rig = Rig::new(clock!(), 2);
    rig.create(wish()).await.unwrap();
    let number = rig.number().await;
    assert_eq!(rig.call(CallEvent { dialled: Some(number), ..call(1) }).await, Some(Outcome::Durable));
    let second = rig.create(wish()).await.unwrap();
    let other = rig.get(second).await.number;
    assert_eq!(rig.call(CallEvent { dialled: Some(other), ..call(1) }).await, None, "the same call again");
    assert_eq!(rig.get(second).await.status, Status::Pending);
    assert_eq!(rig.call(CallEvent { dialled: Some(other), ..call(2) }).await, Some(Outcome::Durable));
}

#[tokio::test]
async fn a_call_that_comes_with_two_callers_at_once_proves_one_of_them() {
    let rig = Rig::new(clock!(), 1);
    let (first, phone) = (rig.create(wish()).await.unwrap(), "+966500000124".parse().unwrap());
    let second = rig.create(NewVerification { phone, ..wish() }).await.unwrap();
    let (finish, mut finished) = mpsc::channel(2);
    let lock = rusqlite::Connection::open(rig.folder.path().join("test.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (ticket, caller) in [(1, PHONE.parse().unwrap()), (2, phone)] {
        let event = CallEvent { caller: Some(caller), ..call(1) };
        let to = finish.clone();
        assert_eq!(rig.verify.take_call(&event, || Notify { ticket, to }, || Held::Kept).taken, Taken::Wait);
    }
    assert_eq!(within(finished.recv()).await.unwrap(), (2, Outcome::Failed));
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(within(finished.recv()).await.unwrap(), (1, Outcome::Durable));
    assert_eq!(rig.get(first).await.status, Status::Verified);
    assert_eq!(rig.get(second).await.status, Status::Pending);
    let other = CallEvent { caller: Some(phone), ..call(2) };
    assert_eq!(rig.call(other).await, Some(Outcome::Durable), "a call of its own still proves it");
}

#[tokio::test]
async fn a_window_that_is_over_expires_once_and_a_call_within_a_minute_is_late() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.pass(Duration::from_secs(121));
    rig.verify.core.expire_due().await;
    assert_eq!(rig.get(id).await.status, Status::Expired);
    rig.verify.core.expire_due().await;
    assert_eq!(rig.call(call(1)).await, None);
    assert_eq!(rig.call(call(1)).await, None, "a fork of the late call adds no event");
    assert_eq!(rig.events().await, [EventType::Created, EventType::Expired, EventType::LateCall]);
    assert_eq!(rig.get(id).await.reasons, Reasons::NONE, "the record stays as it was");
}

#[tokio::test]
async fn a_call_after_a_window_that_nobody_has_noticed_is_over_is_told_after_its_end() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.pass(Duration::from_mins(2));
    assert_eq!(rig.call(call(1)).await, None);
    rig.until(async || rig.get(id).await.sequence == 3).await;
    assert_eq!(rig.events().await, [EventType::Created, EventType::Expired, EventType::LateCall]);
    assert_eq!(rig.get(id).await.status, Status::Expired);
}

#[tokio::test]
async fn a_call_long_after_a_window_that_nobody_has_noticed_is_over_only_ends_it() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.pass(Duration::from_mins(62));
    assert_eq!(rig.call(call(1)).await, None);
    rig.until(async || rig.get(id).await.status == Status::Expired).await;
    assert_eq!(rig.events().await, [EventType::Created, EventType::Expired]);
}

#[tokio::test]
async fn a_call_after_a_cancel_or_long_after_the_window_tells_nobody() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.verify.cancel(DEMO, id, None).await.unwrap();
    assert_eq!(rig.call(call(1)).await, None);
    assert!(matches!(rig.verify.cancel(DEMO, id, None).await, Err(CancelError::Ended(Status::Canceled))));
    assert_eq!(rig.events().await, [EventType::Created, EventType::Canceled]);
}

#[tokio::test]
async fn a_call_below_the_level_leaves_its_reason_and_the_window_open() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(NewVerification { minimum_assurance: Some(Assurance::B), ..wish() }).await.unwrap();
    let weak = CallEvent { assurance: Assurance::C, ..call(1) };
    assert_eq!(rig.call(weak).await, None);
    let forwarded = CallEvent { assurance: Assurance::D, reasons: Reasons::of(Reason::Forwarded), ..call(2) };
    assert_eq!(rig.call(forwarded).await, None);
    assert_eq!(rig.events().await, [EventType::Created, EventType::CallReceived, EventType::CallReceived]);
    let verification = rig.get(id).await;
    assert_eq!(verification.reasons, Reasons::of(Reason::AssuranceTooLow).with(Reason::Forwarded));
    assert_eq!(rig.call(call(3)).await, Some(Outcome::Durable), "a call that fails policy does not use it up");
}

#[tokio::test]
async fn a_caller_without_a_number_is_told_to_the_only_verification_of_the_number_dialled() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    let withheld = |key| CallEvent {
        caller: None,
        source: None,
        presentation: Presentation::Unavailable,
        assurance: Assurance::D,
        reasons: Reasons::of(Reason::CliWithheld),
        ..call(key)
    };
    assert_eq!(rig.call(withheld(1)).await, None);
    rig.until(async || rig.get(id).await.reasons == Reasons::of(Reason::CliWithheld)).await;
    let other = rig.create(NewVerification { phone: "+966500000124".parse().unwrap(), ..wish() }).await.unwrap();
    assert_eq!(rig.call(withheld(2)).await, None);
    assert_eq!(rig.get(other).await.reasons, Reasons::NONE, "with two of them nobody knows whose it is");
}

#[tokio::test]
async fn from_alone_verifies_nobody_where_the_network_asserts_another_number() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    let spoofed = CallEvent { caller: "+966110000999".parse().ok(), presented: PHONE.parse().ok(), ..call(1) };
    assert_eq!(rig.call(spoofed).await, None);
    rig.until(async || rig.get(id).await.reasons == Reasons::of(Reason::FromPaiMismatch)).await;
    assert_eq!(rig.get(id).await.status, Status::Pending);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_and_a_phone_without_a_number_are_told_once_and_without_a_phone() {
    let mut rig = Rig::new(clock!(), 1);
    assert_eq!(rig.call(call(1)).await, None);
    assert_eq!(rig.call(call(1)).await, None, "a retransmission");
    rig.create(wish()).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(rig.create(wish()).await, Err(CreateError::PhoneBusy { .. })));
    }
    rig.verify.warn_of_certificate(UNIX_EPOCH + Duration::from_hours(500_000));
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(within(rig.ready.recv()).await.unwrap());
    }
    told.sort_by_key(|due| due.kind.as_str());
    let kinds: Vec<_> = told.iter().map(|due| due.kind).collect();
    let expected =
        [EventType::CallUnmatched, EventType::CertificateExpiring, EventType::NumberExhausted, EventType::Created];
    assert_eq!(kinds, expected);
    assert!(told[0].body.contains(r#""data":{"number":"+966115000000","call":{"id":"call_"#), "{}", told[0].body);
    assert!(!told[0].body.contains(&PHONE[1..]) && !told[2].body.contains(&PHONE[1..]));
    assert!(told[1].body.contains(r#""not_after":"2027-01-15T08:00:00.000Z""#), "{}", told[1].body);
    assert!(told[2].body.contains(r#""data":{"numbers":1,"refused":1}"#), "{}", told[2].body);
    rig.pass(Duration::from_secs(61));
    assert!(rig.create(wish()).await.is_err());
    let next = within(rig.ready.recv()).await.unwrap();
    assert!(next.body.contains(r#""data":{"numbers":1,"refused":3}"#), "{}", next.body);
}

#[tokio::test]
async fn entries_that_the_store_refuses_wait_without_holding_anybody() {
    let rig = Rig::new(clock!(), 1);
    rig.store.close();
    for n in 0..3 {
        rig.verify.audit_later(records::Kind::KeyUsed, &serde_json::json!({"n": n}));
    }
    let verify = rig.verify.clone();
    within(tokio::task::spawn_blocking(move || verify.audit_again())).await.unwrap();
    assert_eq!(rig.verify.core.unwritten.lock().len(), 3, "they wait for a store that takes them");
}

#[tokio::test]
async fn a_replacement_takes_the_place_and_may_take_the_number() {
    let mut rig = Rig::new(clock!(), 1);
    let first = rig.create(wish()).await.unwrap();
    assert!(matches!(rig.create(wish()).await, Err(CreateError::PhoneBusy { .. })));
    let second = rig.create(NewVerification { replaces: Some(first), ..wish() }).await.unwrap();
    let old = rig.get(first).await;
    assert_eq!((old.status, old.reasons), (Status::Canceled, Reasons::of(Reason::Superseded)));
    assert_eq!(rig.call(call(1)).await, Some(Outcome::Durable));
    assert_eq!(rig.get(second).await.status, Status::Verified);
    let other_phone = NewVerification { phone: "+966500000124".parse().unwrap(), replaces: Some(second), ..wish() };
    assert!(matches!(rig.create(other_phone).await, Err(CreateError::ReplacesUnknown)));
    assert_eq!(rig.events().await.len(), 4);
}

#[tokio::test]
async fn places_for_pending_verifications_come_back_at_every_end() {
    let rig = Rig::new(clock!(), 9);
    for end in 0..3u64 {
        let ids = [rig.create(wish()).await.unwrap(), rig.create(wish()).await.unwrap()];
        assert!(matches!(rig.create(wish()).await, Err(CreateError::TooManyPending { limit: 2, .. })), "round {end}");
        rig.create(NewVerification { replaces: Some(ids[0]), ..wish() }).await.unwrap();
        rig.verify.cancel(DEMO, ids[1], None).await.unwrap();
        rig.pass(Duration::from_secs(121));
        rig.verify.core.expire_due().await;
        rig.pass(Duration::from_secs(61));
    }
}

#[tokio::test]
async fn nothing_is_held_when_the_store_takes_no_steps() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.store.close();
    assert_eq!(rig.call(call(1)).await, Some(Outcome::Failed));
    assert_eq!(rig.call(call(1)).await, Some(Outcome::Failed), "the call is judged again");
    assert!(matches!(rig.verify.cancel(DEMO, id, None).await, Err(CancelError::Request(_))));
    assert!(matches!(rig.create(NewVerification { replaces: Some(id), ..wish() }).await, Err(CreateError::Request(_))));
    let phone = "+966500000124".parse().unwrap();
    for _ in 0..3 {
        let error = rig.create(NewVerification { phone, ..wish() }).await.unwrap_err();
        assert!(matches!(error, CreateError::Request(_)), "neither pair nor place is used up: {error}");
    }
}

#[tokio::test]
async fn what_was_pending_is_pending_after_a_restart_and_the_rest_is_not() {
    let (now, clock) = clock!();
    let rig = Rig::new((now, clock), 2);
    let pending = rig.create(wish()).await.unwrap();
    let canceled = rig.create(wish()).await.unwrap();
    rig.verify.cancel(DEMO, canceled, None).await.unwrap();
    rig.store.close();
    rig.pass(Duration::from_secs(30));
    let rig = Rig::over(rig.folder, (now, clock), 2, Duration::from_mins(1));
    let restored = rig.verify.recover().unwrap();
    assert_eq!((restored.pending, restored.resting), (1, 1));
    assert_eq!(rig.verify.core.metrics.verifications_pending.get(), 1, "told from the start on");
    assert!(matches!(rig.create(wish()).await, Err(CreateError::PhoneBusy { .. })), "one pends, one rests");
    rig.pass(Duration::from_secs(89));
    let number = rig.get(pending).await.number;
    assert_eq!(rig.call(CallEvent { dialled: Some(number), ..call(1) }).await, Some(Outcome::Durable));
}

#[tokio::test]
async fn a_replacement_whose_window_ended_while_the_node_was_down_expires_at_start() {
    let (now, clock) = clock!();
    let rest = Duration::from_mins(5);
    let rig = Rig::over(tempfile::tempdir().unwrap(), (now, clock), 1, rest);
    let first = rig.create(wish()).await.unwrap();
    let second = rig.create(NewVerification { replaces: Some(first), ..wish() }).await.unwrap();
    rig.store.close();
    rig.pass(Duration::from_mins(3));
    let rig = Rig::over(rig.folder, (now, clock), 1, rest);
    rig.verify.recover().unwrap();
    rig.verify.core.expire_due().await;
    assert_eq!(rig.get(second).await.status, Status::Expired, "the rest of the first does not hide it");
}

#[tokio::test]
async fn a_test_call_proves_a_verification_of_its_application_and_is_unmatched_to_any_other() {
    let rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    let judge = |event: CallEvent| {
        let (finish, finished) = mpsc::channel(1);
        (rig.verify.take_call(&event, || Notify { ticket: 1, to: finish }, || Held::Kept), finished)
    };
    // Over a trunk that the number does not take, which stands in no test call's way.
    let test = |key, only| CallEvent { trunk: TrunkId(1), only: Some(only), ..call(key) };
    let (other, _) = judge(test(1, 1));
    assert_eq!((other.outcome, other.verification, other.taken), (CallOutcome::UnknownNumber, None, Taken::Refuse));
    let (own, mut finished) = judge(test(2, 0));
    assert_eq!((own.outcome, own.verification, own.taken), (CallOutcome::Matched, Some(id), Taken::Wait));
    assert!(own.record.is_some());
    assert_eq!(within(finished.recv()).await.unwrap().1, Outcome::Durable);
    assert_eq!(rig.get(id).await.status, Status::Verified);
    let (again, _) = judge(test(3, 0));
    assert_eq!((again.outcome, again.verification), (CallOutcome::Repeated, Some(id)));
}

#[tokio::test]
async fn a_phone_that_plays_a_part_calls_a_second_after_its_creation_and_again_after_a_restart() {
    let (now, clock) = clock!();
    let rig = Rig::over(tempfile::tempdir().unwrap(), (now, clock), 1, Duration::from_mins(1));
    let phone = "+447700900901".parse().unwrap();
    let id = rig.create(NewVerification { phone, ..wish() }).await.unwrap();
    assert_eq!(rig.verify.take_scripted(), []);
    rig.pass(Duration::from_secs(1));
    let expected = ScriptedCall { application: DEMO, phone, number: rig.get(id).await.number, script: Script::Calls };
    assert_eq!(rig.verify.take_scripted(), [expected]);
    assert_eq!(rig.verify.take_scripted(), [], "it calls once");
    rig.store.close();
    let rig = Rig::over(rig.folder, (now, clock), 1, Duration::from_mins(1));
    rig.verify.recover().unwrap();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.verify.take_scripted(), [expected], "what is pending after a restart is called once more");
}

#[tokio::test]
async fn parts_set_the_terms_of_a_creation_or_refuse_it() {
    let rig = Rig::new(clock!(), 10);
    let create = async |phone: &str| rig.create(NewVerification { phone: phone.parse().unwrap(), ..wish() }).await;
    assert!(matches!(create("+12025550190").await, Err(CreateError::Request(RequestError::Unavailable))));
    assert!(matches!(create("+12025550198").await, Err(CreateError::PhoneBusy { .. })));
    assert!(matches!(create("+12025550199").await, Err(CreateError::RateLimited { .. })));
    let not_asserted = rig.get(create("+12025550195").await.unwrap()).await;
    assert_eq!(not_asserted.minimum_assurance, Assurance::B);
    let late = rig.get(create("+12025550197").await.unwrap()).await;
    assert_eq!(late.expires_at.duration_since(late.created_at).unwrap(), Duration::from_mins(1));
    let usual = rig.get(create("+12025550143").await.unwrap()).await;
    assert_eq!(usual.expires_at.duration_since(usual.created_at).unwrap(), Duration::from_mins(2));
    rig.pass(Duration::from_mins(1));
    let scripts: Vec<Script> = rig.verify.take_scripted().into_iter().map(|call| call.script).collect();
    assert_eq!(scripts, [Script::NotAsserted]);
    rig.pass(Duration::from_secs(1));
    let scripts: Vec<Script> = rig.verify.take_scripted().into_iter().map(|call| call.script).collect();
    assert_eq!(scripts, [Script::Late], "a second after its window");
}

#[tokio::test]
async fn a_watch_hears_every_end_and_every_reason_once_it_is_stored() {
    let rig = Rig::new(clock!(), 3);
    for end in 0..4u64 {
        let id = rig.create(wish()).await.unwrap();
        let mut watch = rig.verify.watch(id).unwrap();
        assert!(timeout(Duration::ZERO, watch.changed()).await.is_err(), "nothing has happened yet");
        let number = rig.get(id).await.number;
        let call = CallEvent { dialled: Some(number), ..call(end) };
        let (status, reasons) = match end {
            0 => {
                assert_eq!(rig.call(CallEvent { assurance: Assurance::D, ..call.clone() }).await, None);
                within(watch.changed()).await;
                assert_eq!(rig.get(id).await.status, Status::Pending);
                let again = CallEvent { key: CallKey(99), ..call };
                assert_eq!(rig.call(again).await, Some(Outcome::Durable));
                (Status::Verified, Reasons::NONE)
            }
            1 => {
                rig.verify.cancel(DEMO, id, None).await.unwrap();
                (Status::Canceled, Reasons::of(Reason::ClientCanceled))
            }
            2 => {
                rig.create(NewVerification { replaces: Some(id), ..wish() }).await.unwrap();
                (Status::Canceled, Reasons::of(Reason::Superseded))
            }
            _ => {
                rig.pass(Duration::from_secs(121));
                rig.verify.core.expire_due().await;
                (Status::Expired, Reasons::NONE)
            }
        };
        within(watch.changed()).await;
        let row = rig.get(id).await;
        assert_eq!((row.status, row.reasons), (status, reasons));
        rig.pass(Duration::from_secs(121));
        rig.verify.core.expire_due().await;
    }
}

#[tokio::test]
async fn a_late_call_wakes_nobody_for_the_record_stays() {
    let mut rig = Rig::new(clock!(), 1);
    let id = rig.create(wish()).await.unwrap();
    rig.pass(Duration::from_secs(121));
    rig.verify.core.expire_due().await;
    let mut watch = rig.verify.watch(id).unwrap();
    assert_eq!(rig.call(call(1)).await, None);
    assert_eq!(rig.events().await.last(), Some(&EventType::LateCall));
    assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_repeated_has_the_client_of_the_first() {
    let rig = Rig::new(clock!(), 1);
    let key = || Some(Idempotency { scope: "k".into(), key: "1".into(), fingerprint: [1; 32] });
    let first = within(rig.verify.create(DEMO, wish(), key(), client)).await.unwrap();
    assert!(first.body.contains(r#""client":{"token":"rpc_"#), "{}", first.body);
    let other = |_| ClientAccess { token: "rpc_other".to_owned(), events_url: "/other".to_owned() };
    let again = within(rig.verify.create(DEMO, wish(), key(), other)).await.unwrap();
    assert_eq!((again.body, again.replayed), (first.body, true));
}
