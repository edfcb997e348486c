//! Random histories of the whole engine (application, matcher, store) on one thread and a clock of its own: creations,
//! calls and their duplicates, cancels, expiries, faults of the disk, crashes and restarts, in any order. The schedule is
//! drawn too: when each request goes on, and when the store commits.
//!
//! What must hold: whoever was answered was told the truth for good; a verification has one terminal state, one event and
//! one entry of the audit log for it; one INVITE verifies at most one; nobody shares a pair; nothing is lost.

mod disk;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::dice;
use super::rig::{client, settings, signing, wish};
use super::*;
use crate::matcher::verification::VerificationId;
use crate::store::Retention;
use crate::store::hand::Hand;

/// Histories of a run: `RINGPROOF_HISTORIES` has another number, `RINGPROOF_SEED` has one of them alone.
const HISTORIES: u64 = 10_000;

/// Things that happen in one history.
const EVENTS: usize = 45;

const PHONES: u64 = 3;
const NUMBERS: u32 = 2;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// Nothing depends on them, and making them takes longer than a history.
    static METRICS: Metrics = Metrics::new();
}

const CLOCK: Clock =
    Clock { boot: || BootTime(NOW.get()), utc: || UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + NOW.get()) };

/// A request under way, and what it came to.
type Task = Pin<Box<dyn Future<Output = Told>>>;

/// How the wait of a call ended.
type Heard = (u128, Outcome);

enum Told {
    /// Created, and which one it replaced if that was pending.
    Created(VerificationId, E164),
    Canceled(VerificationId),
    Nothing,
}

/// What somebody was told, and may rely on.
#[derive(Default)]
struct Promised {
    /// Creations that were answered 201: the phone.
    created: BTreeMap<VerificationId, E164>,
    /// Calls that matched and were answered 486: the verification.
    verified: BTreeMap<u64, VerificationId>,
    /// Cancels that were answered 200.
    canceled: BTreeSet<VerificationId>,
    /// Terminal states that were read.
    seen: HashMap<String, String>,
}

/// A process over the files.
struct Node {
    verify: Verify,
    hand: Hand,
    _ready: mpsc::Receiver<Due>,
}

struct World {
    random: StdRng,
    folder: PathBuf,
    node: Option<Node>,
    tasks: Vec<Task>,
    /// Calls that wait for a commit: call, verification if it is the one that claims.
    waiting: HashMap<u128, (u64, Option<VerificationId>)>,
    outcomes: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    promised: Promised,
    /// Calls that may come again, and when they came first.
    calls: Vec<(u64, u64)>,
    next_call: u64,
    ticket: u128,
    steps: Vec<String>,
}

#[test]
fn no_history_breaks_a_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (first, count) = match number("RINGPROOF_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("RINGPROOF_HISTORIES").unwrap_or(HISTORIES)),
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let template = Template::new();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let template = &template;
            scope.spawn(move || {
                let folder = template.0.join(thread.to_string());
                std::fs::create_dir(&folder).unwrap();
                for seed in (first..first + count).skip(thread).step_by(threads) {
                    for name in ["test.db", "test.db-wal", "test.db-shm"] {
                        let _ = std::fs::remove_file(folder.join(name));
                    }
                    std::fs::copy(template.0.join("test.db"), folder.join("test.db")).unwrap();
                    World::new(seed, &folder).run(seed);
                }
            });
        }
    });
}

/// An empty database of the present schema, in memory where the system has such a place.
struct Template(PathBuf);

impl Template {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = root.join(format!("ringproof-model-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Node::open(&folder).hand.crash();
        Self(folder)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Node {
    fn open(folder: &Path) -> Self {
        let at = crate::store::Settings {
            path: folder.join("test.db"),
            retention: Retention::of_all(Duration::from_hours(24)),
        };
        let (offer, ready) = mpsc::channel(1);
        let (metrics, health) = (METRICS.with(Metrics::clone), Arc::new(Health::default()));
        let subscriptions = Subscriptions(vec![Subscription {
            application: "demo".to_owned(),
            endpoint: EndpointId("demo".into()),
            events: EventType::ALL.to_vec(),
        }]);
        let (store, hand) = Hand::open(&at, subscriptions, metrics.clone(), Arc::clone(&health), offer).unwrap();
        let recent = Arc::new(RecentCalls::new(200));
        let mut settings = settings(NUMBERS, Duration::from_secs(30));
        settings.applications[0].ttl = Duration::from_mins(1);
        let verify = Verify::new(settings, [7; 16], CLOCK, store, recent, signing(), metrics, health);
        verify.recover().unwrap();
        Self { verify, hand, _ready: ready }
    }
}

impl World {
    fn new(seed: u64, folder: &Path) -> Self {
        dice::seed(seed);
        NOW.set(1_000_000);
        Self {
            random: StdRng::seed_from_u64(seed),
            folder: folder.to_owned(),
            node: Some(Node::open(folder)),
            tasks: Vec::new(),
            waiting: HashMap::new(),
            outcomes: mpsc::channel(256),
            promised: Promised::default(),
            calls: Vec::new(),
            next_call: 0,
            ticket: 0,
            steps: Vec::new(),
        }
    }

    fn run(mut self, seed: u64) {
        let history = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..EVENTS {
                self.one();
            }
            self.end();
        }));
        if history.is_err() {
            let steps = self.steps.join("\n  ");
            panic!("history {seed} breaks a promise; RINGPROOF_SEED={seed} has it again:\n  {steps}");
        }
    }

    /// One thing happens.
    fn one(&mut self) {
        match self.random.random_range(0..100) {
            0..14 => self.create(),
            14..38 => self.call(),
            38..43 => self.cancel(),
            43..49 => self.pass(),
            49..53 => self.expire(),
            53..74 => self.poll(),
            74..91 => self.commit(),
            91..93 => self.fault(),
            93..97 => self.crash(),
            _ => self.restart(),
        }
        self.hear();
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a node runs between things")
    }

    fn step(&mut self, text: String) {
        self.steps.push(text);
    }

    fn phone(&mut self) -> E164 {
        E164::from_u64(966_500_000_100 + self.random.random_range(0..PHONES)).unwrap()
    }

    fn number(&mut self) -> E164 {
        number().offset(self.random.random_range(0..u64::from(NUMBERS))).unwrap()
    }

    /// One of the verifications that somebody was told of.
    fn known(&mut self) -> Option<VerificationId> {
        let count = self.promised.created.len();
        let nth = (count > 0).then(|| self.random.random_range(0..count))?;
        self.promised.created.keys().nth(nth).copied()
    }

    fn create(&mut self) {
        let phone = self.phone();
        let replaces = self.known().filter(|_| self.random.random_bool(0.3));
        let phone = replaces.map_or(phone, |id| self.promised.created[&id]);
        self.step(format!("create {phone:?} replaces {}", replaces.is_some()));
        let verify = self.node().verify.clone();
        self.tasks.push(Box::pin(async move {
            let wish = NewVerification { phone, replaces, ..wish() };
            match verify.create(DEMO, wish, None, client).await {
                Ok(answer) => Told::Created(answer.id, phone),
                Err(_) => Told::Nothing,
            }
        }));
    }

    fn cancel(&mut self) {
        let Some(id) = self.known() else { return };
        self.step(format!("cancel {id}"));
        let verify = self.node().verify.clone();
        self.tasks.push(Box::pin(async move {
            match verify.cancel(DEMO, id, None).await {
                Ok(_) => Told::Canceled(id),
                Err(_) => Told::Nothing,
            }
        }));
    }

    fn expire(&mut self) {
        self.step("expire".to_owned());
        let core = Arc::clone(&self.node().verify.core);
        self.tasks.push(Box::pin(async move {
            core.expire_due().await;
            Told::Nothing
        }));
    }

    fn call(&mut self) {
        // A peer repeats a call for 32 s (RFC 3261 17.1.1.2, Timer B), and may change all of it but its name.
        self.calls.retain(|(_, at)| NOW.get() - at < 30_000);
        let again = !self.calls.is_empty() && self.random.random_bool(0.25);
        let key = if again {
            self.calls[self.random.random_range(0..self.calls.len())].0
        } else {
            self.next_call += 1;
            self.calls.push((self.next_call, NOW.get()));
            self.next_call
        };
        let (phone, number) = (self.phone(), self.number());
        let assurance = if self.random.random_bool(0.85) { Assurance::B } else { Assurance::D };
        let event = CallEvent {
            caller: Some(phone),
            dialled: Some(number),
            assurance,
            received_at: (CLOCK.utc)(),
            ..call(key)
        };
        self.ticket += 1;
        let (ticket, to) = (self.ticket, self.outcomes.0.clone());
        let judged = self.node().verify.take_call(&event, || Notify { ticket, to }, || Held::Kept);
        self.step(format!("call {key} {phone:?} -> {number:?}: {:?} {:?}", judged.outcome, judged.taken));
        match judged.taken {
            Taken::Wait => {
                let claims = judged.verification.filter(|_| judged.outcome == CallOutcome::Matched);
                self.waiting.insert(ticket, (key, claims));
            }
            Taken::Refuse => {
                // It is answered: nothing of this pair may have been waiting for exactly this call.
                let idle = self.tasks.is_empty() && self.waiting.is_empty();
                if idle && assurance == Assurance::B && judged.outcome == CallOutcome::Unmatched {
                    let waits = self
                        .pending()
                        .into_iter()
                        .find(|row| (row.phone, row.number) == (phone, number) && row.expires_at > (CLOCK.utc)());
                    assert!(waits.is_none(), "a call that would have verified was refused");
                }
            }
            Taken::Unavailable => {}
        }
    }

    fn pass(&mut self) {
        let time = [10, 900, 5_000, 31_000, 61_000, 130_000][self.random.random_range(0..6)];
        self.step(format!("{time} ms pass"));
        NOW.set(NOW.get() + time);
    }

    fn commit(&mut self) {
        let done = self.node().hand.turn();
        self.step(format!("the store works: {done}"));
    }

    fn fault(&mut self) {
        let fault = self.random.random_range(0..4);
        self.step(format!("fault {fault}"));
        let hand = &self.node().hand;
        match fault {
            0 => hand.fail_commit(1),
            1 => hand.fail_commit(2),
            2 => hand.fill_disk(true),
            _ => hand.fill_disk(false),
        }
    }

    /// A request goes on.
    fn poll(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let nth = self.random.random_range(0..self.tasks.len());
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(told) = self.tasks[nth].as_mut().poll(&mut context) else { return };
        drop(self.tasks.remove(nth));
        match told {
            Told::Created(id, phone) => {
                self.step(format!("created {id} {phone:?}"));
                self.promised.created.insert(id, phone);
            }
            Told::Canceled(id) => {
                self.step(format!("canceled {id}"));
                assert!(self.promised.canceled.insert(id), "one cancel is answered 200");
            }
            Told::Nothing => {}
        }
    }

    /// Calls that waited are answered.
    fn hear(&mut self) {
        while let Ok((ticket, outcome)) = self.outcomes.1.try_recv() {
            let (key, claims) = self.waiting.remove(&ticket).expect("an outcome is told once, of a call that waits");
            self.steps.push(format!("call {key} is told {outcome:?}"));
            if let (Outcome::Durable, Some(id)) = (outcome, claims) {
                let before = self.promised.verified.insert(key, id);
                assert!(before.is_none(), "call {key} verifies {id} after {before:?}");
            }
        }
    }

    /// kill -9: memory is gone, and whoever waited hears nothing.
    fn crash(&mut self) {
        self.step("crash".to_owned());
        self.tasks.clear();
        let Node { verify, hand, .. } = self.node.take().expect("a node runs between things");
        hand.crash();
        drop(verify);
        while self.outcomes.1.try_recv().is_ok() {}
        self.waiting.clear();
        self.look();
        NOW.set(NOW.get() + self.random.random_range(0..40_000));
        self.node = Some(Node::open(&self.folder));
    }

    /// A stop in order: everything that was begun comes to its end.
    fn restart(&mut self) {
        self.step("restart".to_owned());
        self.settle();
        let Node { verify, hand, .. } = self.node.take().expect("a node runs between things");
        hand.crash();
        drop(verify);
        self.look();
        self.node = Some(Node::open(&self.folder));
    }

    fn settle(&mut self) {
        self.node().hand.fill_disk(false);
        for _ in 0..10_000 {
            let worked = self.node().hand.turn();
            self.hear();
            let before = self.tasks.len();
            if before > 0 {
                self.poll();
            }
            if !worked && self.tasks.is_empty() && self.waiting.is_empty() {
                return;
            }
        }
        panic!("{} requests and {} calls never come to an end", self.tasks.len(), self.waiting.len());
    }

    fn end(&mut self) {
        self.settle();
        NOW.set(NOW.get() + 400_000);
        self.expire();
        self.settle();
        self.expire();
        self.settle();
        self.step("end".to_owned());
        self.crash();
        assert_eq!(self.pending().len(), 0, "every window is over");
    }
}
