use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::matcher::pair::LATE;
use crate::matcher::verification::Status;

const KEY: PairKey = PairKey(1);
const NOW: BootTime = BootTime(10_000);

fn id(number: u128) -> VerificationId {
    VerificationId(Ulid(number))
}

fn number() -> E164 {
    "+966115000042".parse().unwrap()
}

fn pending(id_number: u128, deadline: u64) -> Pending {
    Pending {
        id: id(id_number),
        deadline: BootTime(deadline),
        application: 0,
        live: false,
        minimum: Assurance::C,
        number: number(),
        generation: 0,
    }
}

fn rest(id_number: u128, until: u64) -> Rest {
    pending(id_number, 70_000).rest(Status::Verified, NOW, BootTime(until))
}

fn with_pending() -> Matcher {
    let matcher = Matcher::default();
    assert!(matcher.reserve(KEY, id(7), NOW));
    matcher.activate(KEY, pending(7, 70_000), || ());
    matcher
}

#[test]
fn a_reserved_pair_does_not_match() {
    let matcher = Matcher::default();
    assert!(matcher.reserve(KEY, id(7), NOW));
    assert!(!matcher.reserve(KEY, id(8), NOW));
    assert_eq!(matcher.meet(KEY, NOW, Assurance::A, 0, None, || true), Met::Nothing);
    matcher.release(KEY, id(8));
    assert!(!matcher.reserve(KEY, id(9), NOW), "another's release changes nothing");
    matcher.release(KEY, id(7));
    assert!(matcher.reserve(KEY, id(9), NOW));
}

#[test]
fn the_first_call_wins_and_the_next_waits_for_it() {
    let matcher = with_pending();
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, None, || true), Met::Won(pending(7, 70_000)));
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, None, || true), Met::Joined);
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, None, || false), Met::NoRoom);
    matcher.settle(KEY, rest(7, 130_000), || ());
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, None, || true), Met::Rested(rest(7, 130_000)));
    assert_eq!(matcher.pending_count(), 0);
}

#[test]
fn a_call_by_earlier_settings_proves_what_was_begun_under_them() {
    let matcher = Matcher::default();
    matcher.activate(KEY, Pending { generation: 3, ..pending(7, 70_000) }, || ());
    let newer = Met::TooNew(Pending { generation: 3, ..pending(7, 70_000) });
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 2, None, || true), newer);
    assert!(matches!(matcher.meet(KEY, NOW, Assurance::C, 3, None, || true), Met::Won(_)));
}

#[test]
fn every_pending_pair_is_found_by_its_second() {
    let matcher = Matcher::default();
    for (key, deadline) in [(1, 70_000), (2, 70_500), (3, 12_000)] {
        matcher.activate(PairKey(key), pending(key, deadline), || ());
    }
    let (first, pairs) = matcher.due_from(0).unwrap();
    assert_eq!((first, pairs), (12, vec![PairKey(3)]));
    assert_eq!(matcher.due_from(71).unwrap(), (71, vec![PairKey(2)]));
    assert_eq!(matcher.due_from(72), None);
    assert_eq!(matcher.begin_end_of(PairKey(3), |pending| pending.application == 1), EndMet::Gone);
    assert_eq!(matcher.begin_end_of(PairKey(3), |_| true), EndMet::Begun(pending(3, 12_000)));
    assert_eq!(matcher.begin_end_of(PairKey(3), |_| true), EndMet::Busy);
}

#[test]
fn one_of_many_threads_wins() {
    let matcher = Arc::new(with_pending());
    let wins = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (matcher, wins) = (Arc::clone(&matcher), Arc::clone(&wins));
            scope.spawn(move || {
                if let Met::Won(_) = matcher.meet(KEY, NOW, Assurance::C, 0, None, || true) {
                    wins.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(wins.load(Ordering::Relaxed), 1);
}

#[test]
fn a_call_below_the_minimum_leaves_the_pair_pending() {
    let matcher = with_pending();
    assert_eq!(matcher.meet(KEY, NOW, Assurance::D, 0, None, || true), Met::TooLow(pending(7, 70_000)));
    assert!(matcher.pending(KEY, NOW, None).is_some());
}

#[test]
fn a_call_after_the_window_begins_its_end_where_nobody_has() {
    let matcher = with_pending();
    assert_eq!(matcher.meet(KEY, BootTime(70_000), Assurance::A, 0, None, || true), Met::Overdue(pending(7, 70_000)));
    assert_eq!(
        matcher.meet(KEY, BootTime(70_000), Assurance::A, 0, None, || true),
        Met::Joined,
        "the next waits for the end"
    );
    assert!(matcher.expire(BootTime(71_000), 10).ended.is_empty(), "it is ended once");
}

#[test]
fn an_undone_claim_can_be_won_again_and_expires() {
    let matcher = with_pending();
    matcher.meet(KEY, NOW, Assurance::C, 0, None, || true);
    assert!(matcher.expire(BootTime(70_000), 10).ended.is_empty(), "expiry waits for the claim");
    matcher.undo(KEY, id(7), || ());
    assert_eq!(matcher.expire(BootTime(71_000), 10).ended, [(KEY, pending(7, 70_000))]);
    assert_eq!(matcher.expire(BootTime(71_000), 10).looked_at, 0);
}

#[test]
fn an_end_waits_for_a_claim_and_excludes_one() {
    let matcher = with_pending();
    assert_eq!(matcher.begin_end(KEY, id(8), || ()), EndMet::Gone);
    matcher.meet(KEY, NOW, Assurance::C, 0, None, || true);
    let mut joined = false;
    assert_eq!(matcher.begin_end(KEY, id(7), || joined = true), EndMet::Busy);
    assert!(joined);
    matcher.undo(KEY, id(7), || ());
    assert!(matches!(matcher.begin_end(KEY, id(7), || ()), EndMet::Begun(_)));
    assert_eq!(matcher.meet(KEY, NOW, Assurance::A, 0, None, || true), Met::Joined, "a call waits how the end goes");
}

#[test]
fn a_rested_pair_is_free_again() {
    let matcher = with_pending();
    matcher.meet(KEY, NOW, Assurance::C, 0, None, || true);
    matcher.settle(KEY, rest(7, 130_000), || ());
    assert!(!matcher.reserve(KEY, id(8), BootTime(129_999)));
    assert_eq!(matcher.busy_until(KEY, NOW), BootTime(130_000));
    matcher.expire(BootTime(131_000), 10);
    assert_eq!(matcher.pairs.len(), 0, "nothing is left behind");
    assert!(matcher.reserve(KEY, id(8), BootTime(131_000)));
}

#[test]
fn an_expired_pair_is_known_for_a_minute_though_it_is_free_before() {
    let matcher = with_pending();
    assert_eq!(matcher.expire(BootTime(70_000), 10).ended.len(), 1);
    let expired = pending(7, 70_000).rest(Status::Expired, BootTime(70_000), BootTime(70_000));
    matcher.settle(KEY, expired, || ());
    matcher.expire(BootTime(129_999), 10);
    assert_eq!(matcher.meet(KEY, BootTime(129_999), Assurance::C, 0, None, || true), Met::Rested(expired));
    assert!(matcher.reserve(KEY, id(8), BootTime(129_999)), "it is free all the same");
    matcher.release(KEY, id(8));
    matcher.rest(KEY, expired);
    matcher.expire(BootTime(130_000), 10);
    assert_eq!(matcher.meet(KEY, BootTime(130_000), Assurance::C, 0, None, || true), Met::Nothing);
}

#[test]
fn the_only_pending_verification_of_a_number_is_known() {
    let matcher = with_pending();
    assert_eq!(matcher.only_pending_on(number(), None), Some(id(7)));
    matcher.activate(PairKey(2), pending(9, 80_000), || ());
    assert_eq!(matcher.only_pending_on(number(), None), None);
    matcher.meet(KEY, NOW, Assurance::C, 0, None, || true);
    matcher.settle(KEY, rest(7, 130_000), || ());
    assert_eq!(matcher.only_pending_on(number(), None), Some(id(9)));
}

#[test]
fn a_test_call_meets_the_sandbox_verifications_of_its_application_alone() {
    let (own, other) = (Some(0), Some(1));
    let matcher = with_pending();
    assert_eq!(matcher.pending(KEY, NOW, other), None);
    assert_eq!(matcher.only_pending_on(number(), other), None);
    let met = |only| matcher.meet(KEY, NOW, Assurance::B, 0, only, || panic!("nobody is let in"));
    assert_eq!(met(other), Met::Nothing);
    assert_eq!(
        matcher.meet(KEY, BootTime(70_000), Assurance::B, 0, other, || true),
        Met::Nothing,
        "also after its window"
    );
    assert!(matches!(matcher.begin_end(KEY, id(7), || ()), EndMet::Begun(_)));
    assert_eq!(met(other), Met::Nothing, "also while it ends");
    matcher.undo(KEY, id(7), || ());
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, own, || true), Met::Won(pending(7, 70_000)));
    assert_eq!(met(other), Met::Nothing, "also while it is claimed");
    matcher.settle(KEY, rest(7, 130_000), || ());
    assert_eq!(met(other), Met::Nothing, "also while it rests");
    assert_eq!(matcher.meet(KEY, NOW, Assurance::C, 0, own, || true), Met::Rested(rest(7, 130_000)));
}

#[test]
fn a_test_call_never_meets_a_live_verification() {
    let matcher = Matcher::default();
    let live = Pending { live: true, ..pending(7, 70_000) };
    matcher.activate(KEY, live, || ());
    assert_eq!(matcher.meet(KEY, NOW, Assurance::A, 0, Some(0), || true), Met::Nothing);
    assert_eq!((matcher.pending(KEY, NOW, Some(0)), matcher.only_pending_on(number(), Some(0))), (None, None));
    assert_eq!(matcher.meet(KEY, NOW, Assurance::A, 0, None, || true), Met::Won(live));
}

#[test]
fn a_test_call_is_not_told_by_a_missing_hint_that_another_application_waits_on_the_number() {
    let matcher = with_pending();
    matcher.activate(PairKey(2), Pending { application: 1, ..pending(9, 80_000) }, || ());
    assert_eq!(matcher.only_pending_on(number(), None), None);
    assert_eq!(matcher.only_pending_on(number(), Some(0)), Some(id(7)));
    matcher.meet(KEY, NOW, Assurance::C, 0, None, || true);
    matcher.settle(KEY, rest(7, 130_000), || ());
    assert_eq!(matcher.only_pending_on(number(), Some(0)), None);
    assert_eq!(matcher.sandbox_numbers.len(), 1, "nothing is left behind");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Reserve,
    Activate,
    Release,
    Call,
    Commit,
    Undo,
    End,
    Expire,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Reserve),
        Just(Step::Activate),
        Just(Step::Release),
        Just(Step::Call),
        Just(Step::Commit),
        Just(Step::Undo),
        Just(Step::End),
        Just(Step::Expire),
        (0u16..40_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever the order, a verification is won or ended at most once between undos, and none is won after it ended.
    #[test]
    fn one_verification_has_one_end(steps in proptest::collection::vec(step(), 1..80)) {
        let matcher = Matcher::default();
        let mut now = 1_000u64;
        let mut newest = 0u128;
        let mut reserved = None;
        let mut busy: Option<Pending> = None;
        let mut ended = Vec::new();
        for step in steps {
            match step {
                Step::Reserve => if matcher.reserve(KEY, id(newest + 1), BootTime(now)) {
                    newest += 1;
                    reserved = Some(newest);
                },
                Step::Activate => if let Some(number) = reserved.take() {
                    matcher.activate(KEY, pending(number, now + 60_000), || ());
                },
                Step::Release => if let Some(number) = reserved.take() {
                    matcher.release(KEY, id(number));
                },
                Step::Call => match matcher.meet(KEY, BootTime(now), Assurance::C, 0, None, || true) {
                    Met::Won(won) => {
                        prop_assert!(busy.is_none() && !ended.contains(&won.id) && now < won.deadline.0);
                        busy = Some(won);
                    }
                    Met::Overdue(over) => {
                        prop_assert!(busy.is_none() && !ended.contains(&over.id) && now >= over.deadline.0);
                        busy = Some(over);
                    }
                    _ => {}
                },
                Step::End => if let EndMet::Begun(begun) = matcher.begin_end(KEY, id(newest), || ()) {
                    prop_assert!(busy.is_none() && !ended.contains(&begun.id));
                    busy = Some(begun);
                },
                Step::Expire => for (_, begun) in matcher.expire(BootTime(now), 10).ended {
                    prop_assert!(busy.is_none() && !ended.contains(&begun.id) && begun.deadline.0 <= now);
                    busy = Some(begun);
                },
                Step::Commit => if let Some(done) = busy.take() {
                    ended.push(done.id);
                    let rest = done.rest(Status::Verified, BootTime(now), BootTime(now + 5_000));
                    matcher.settle(KEY, rest, || ());
                },
                Step::Undo => if let Some(undone) = busy.take() {
                    matcher.undo(KEY, undone.id, || ());
                },
                Step::Wait(time) => now += u64::from(time),
            }
        }
        // Whatever is left ends by time alone, and leaves nothing.
        if let Some(number) = reserved { matcher.release(KEY, id(number)); }
        if let Some(undone) = busy { matcher.undo(KEY, undone.id, || ()); }
        now += 100_000;
        for (key, left) in matcher.expire(BootTime(now), 10).ended {
            let rest = left.rest(Status::Expired, BootTime(now), BootTime(now));
            matcher.settle(key, rest, || ());
        }
        matcher.expire(BootTime(now + 1_000).plus(LATE), 10);
        prop_assert_eq!(matcher.pairs.len(), 0);
        prop_assert_eq!(matcher.pending_count(), 0);
    }
}
