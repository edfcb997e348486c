//! Random steps against a model of one line.

use std::collections::HashMap;

use proptest::prelude::*;
use ulid::Ulid;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Act {
    Create(u8),
    Claim(u8),
    End(u8, u8),
    Expire(u8, u8),
    Note(u8),
    Late(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..6u8;
    prop_oneof![
        4 => which.clone().prop_map(Act::Create),
        3 => which.clone().prop_map(Act::Claim),
        2 => (which.clone(), 0..3u8).prop_map(|(which, status)| Act::End(which, status)),
        1 => (which.clone(), which.clone()).prop_map(|(first, second)| Act::Expire(first, second)),
        2 => which.clone().prop_map(Act::Note),
        1 => which.prop_map(Act::Late),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_steps_gives_one_terminal_state_and_one_terminal_event(
        acts in prop::collection::vec(act(), 1..60)
    ) {
        let mut node = Node::new();
        let mut model: HashMap<u8, (Status, usize)> = HashMap::new();
        for (index, act) in acts.into_iter().enumerate() {
            let n = 1_000 + index as u64;
            let id = |which: u8| create(u64::from(which)).verification.id;
            let pending = |model: &HashMap<u8, (Status, usize)>, which: u8| {
                model.get(&which).is_some_and(|(status, _)| *status == Status::Pending)
            };
            match act {
                Act::Create(which) => {
                    let mut step = create(u64::from(which));
                    step.event = EventId(Ulid(n.into()));
                    let created = wait(|done| node.store.create(step, done));
                    prop_assert_eq!(created.is_ok(), !model.contains_key(&which));
                    model.entry(which).or_insert((Status::Pending, 1));
                }
                Act::Claim(which) => {
                    let expected = pending(&model, which);
                    prop_assert_eq!(node.claim(id(which), n).unwrap().is_some(), expected);
                    if expected {
                        model.entry(which).and_modify(|entry| *entry = (Status::Verified, entry.1 + 1));
                    }
                }
                Act::End(which, status) => {
                    let status = [Status::Canceled, Status::Denied, Status::Failed][usize::from(status)];
                    let expected = pending(&model, which);
                    prop_assert_eq!(node.end(id(which), n, status).unwrap().is_some(), expected);
                    if expected {
                        model.entry(which).and_modify(|entry| *entry = (status, entry.1 + 1));
                    }
                }
                Act::Expire(first, second) => {
                    let steps =
                        vec![end(id(first), n, Status::Expired), end(id(second), n + 500, Status::Expired)];
                    let answers = wait(|done| node.store.expire(steps, done));
                    for (which, answer) in [first, second].into_iter().zip(answers) {
                        let expected = pending(&model, which);
                        prop_assert_eq!(answer.unwrap().is_some(), expected);
                        if expected {
                            model.entry(which).and_modify(|entry| *entry = (Status::Expired, entry.1 + 1));
                        }
                    }
                }
                Act::Note(which) => {
                    node.note(id(which), n, EventType::CallReceived).unwrap();
                    if pending(&model, which) {
                        model.entry(which).and_modify(|entry| entry.1 += 1);
                    }
                }
                Act::Late(which) => {
                    node.note(id(which), n, EventType::LateCall).unwrap();
                    model.entry(which).and_modify(|entry| entry.1 += 1);
                }
                Act::Restart => node.restart(),
            }
        }
        for (which, (status, sequence)) in model {
            let row = node.read(create(u64::from(which)).verification.id).unwrap();
            prop_assert_eq!((row.status, row.sequence as usize), (status, sequence));
            prop_assert_eq!(row.ended_at.is_some(), status != Status::Pending);
            let events = node.events(row.id);
            prop_assert_eq!(events.len(), sequence);
            let terminal: Vec<_> = events
                .iter()
                .filter(|kind| EventType::ALL.iter().any(|one| one.is_terminal() && one.as_str() == *kind))
                .collect();
            let expected = (status != Status::Pending).then(|| format!("verification.{}", status.as_str()));
            prop_assert_eq!(terminal, expected.iter().collect::<Vec<_>>());
        }
    }
}
