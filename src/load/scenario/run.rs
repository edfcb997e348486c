//! The edge of a scenario's load: files, the clock, the socket, the interrupt.
//!
//! One thread does all: it begins calls, heeds timers, sends, and takes what comes. Invariant: files, calls in flight
//! and what waits are bounded, and the load ends once no call begins any more and those in flight have ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;

use super::abort::Aborts;
use super::call::{Failure, Plan};
use super::engine::Engine;
use super::fault::ScenarioError;
use super::fields::{Fields, FieldsError};
use super::link::{Link, LinkError};
use super::parse::parse;
use super::step::Scenario;
use super::template::{Ends, Words};
use crate::load::flood::timer::Timer;
use crate::load::losses::Losses;
use crate::load::pace::{Bounds, Pace, Pacer};
use crate::load::progress::{Line, PERIOD};
use crate::load::tally::Tally;
use crate::load::target::Target;

/// Longest scenario, in bytes.
const MAX_SCENARIO: u64 = 1 << 20;
/// Longest CSV, in bytes.
const MAX_FIELDS: u64 = 64 << 20;
/// How long calls in flight are waited for after an interrupt.
const GRACE: Duration = Duration::from_secs(1);
/// How long after the end an open loop still begins calls that are overdue.
const OVERDUE: Duration = Duration::from_secs(1);
/// First and longest pause before a lost connection is opened again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a peer may take no connection until the load ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to play where, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scenario's file.
    pub scenario: PathBuf,
    /// The CSV.
    pub fields: Option<PathBuf>,
    /// The peer.
    pub via: Target,
    /// Value of `[service]`.
    pub service: String,
    /// Values of the user's own keywords.
    pub keys: Vec<(String, String)>,
    /// When calls begin.
    pub pace: Pace,
    /// Where the load ends.
    pub bounds: Bounds,
    /// How long a `<recv>` without `timeout` waits.
    pub timeout: Duration,
    /// What makes this run another than all others: random.
    pub seed: u64,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the scenario calls itself.
    pub name: String,
    /// The counts.
    pub tally: Tally,
    /// From the start until the last call began or ended.
    pub elapsed: Duration,
    /// What this machine has lost of it.
    pub losses: Losses,
}

/// Why nothing was played, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A file that cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// What is to be read is no file, or a large one.
    #[error("{} is no regular file of at most {most} bytes", .path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// Most bytes that are read.
        most: u64,
    },
    /// Bytes that are no text.
    #[error("{} is not UTF-8 text", .path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// The scenario.
    #[error("{}, {source}", .path.display())]
    Scenario {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: ScenarioError,
    },
    /// The CSV.
    #[error("{}: {source}", .path.display())]
    Fields {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: FieldsError,
    },
    /// No way to the peer.
    #[error("{via} cannot be reached: {source}")]
    Link {
        /// The peer asked for.
        via: Target,
        /// Why.
        source: LinkError,
    },
    /// No event loop, or no timer.
    #[error("the system fails the load: {0}")]
    System(#[from] io::Error),
}

impl PlayError {
    /// Whether the command was used wrongly, so that trying again does not help.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        !matches!(self, Self::Link { .. } | Self::System(_))
    }
}

/// Plays the scenario, shows how far it is where standard error is a terminal, and gives what became of it. An
/// interrupt (Ctrl-C) ends the load: no call begins any more, and those in flight have a second. Blocks. `clock` is the
/// monotonic time.
///
/// # Errors
/// A [`PlayError`].
pub fn run(settings: &Settings, clock: fn() -> Instant) -> Result<Outcome, PlayError> {
    let (scenario, fields) = read(settings)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let line = Line::on_terminal(settings.bounds.calls.is_none().then_some(settings.bounds.duration));
    runtime.block_on(async {
        let interrupt = async {
            // Without a handler an interrupt ends the process, as it does anyway.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        play(settings, (scenario, fields), clock, line, interrupt).await
    })
}

/// Reads the files.
fn read(settings: &Settings) -> Result<(Scenario, Option<Fields>), PlayError> {
    let fields = match &settings.fields {
        Some(path) => {
            let text = read_text(path, MAX_FIELDS)?;
            Some(Fields::parse(text).map_err(|source| PlayError::Fields { path: path.clone(), source })?)
        }
        None => None,
    };
    let columns = fields.as_ref().map(Fields::columns);
    let words = Words { service: &settings.service, keys: &settings.keys, columns };
    let path = &settings.scenario;
    let scenario = parse(&read_text(path, MAX_SCENARIO)?, &words)
        .map_err(|source| PlayError::Scenario { path: path.clone(), source })?;
    Ok((scenario, fields))
}

fn read_text(path: &Path, most: u64) -> Result<String, PlayError> {
    let failed = |source| PlayError::Read { path: path.to_owned(), source };
    // A pipe would have to be waited for even to be opened.
    let is_file = std::fs::metadata(path).map_err(failed)?.is_file();
    let mut bytes = Vec::new();
    if is_file {
        File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    }
    if !is_file || bytes.len() as u64 > most {
        return Err(PlayError::NoFile { path: path.to_owned(), most });
    }
    String::from_utf8(bytes).map_err(|_| PlayError::NoText { path: path.to_owned() })
}

async fn play(
    settings: &Settings,
    (scenario, fields): (Scenario, Option<Fields>),
    clock: fn() -> Instant,
    shown: Option<Line>,
    interrupt: impl Future<Output = ()>,
) -> Result<Outcome, PlayError> {
    let via = settings.via;
    let link = Link::open(via).await.map_err(|source| PlayError::Link { via, source })?;
    let plan = Plan {
        scenario,
        fields,
        ends: Ends { transport: via.transport, local: link.local_addr(), remote: via.address },
        run: u32::try_from(settings.seed >> 33).unwrap_or_default(),
        seed: settings.seed,
        timeout: settings.timeout,
        epoch: time_of_day(),
        aborts: Aborts::default(),
    };
    let engine = Engine::new(&plan, Pacer::new(settings.pace, settings.bounds, 0, 1));
    let timer = Timer::new()?;
    let mut course = Course { settings, engine, link, timer, clock, start: clock(), screen: Screen::new(shown) };
    let mut interrupt = pin!(interrupt);
    let mut grace: Option<Duration> = None;
    loop {
        let now = course.now();
        if grace.is_some_and(|end| now >= end) {
            course.engine.give_up(Failure::Interrupted, now);
        } else if now >= settings.bounds.duration.saturating_add(OVERDUE) {
            course.engine.refuse("not_begun", now);
        }
        if course.engine.is_over(now) {
            break;
        }
        let step = async {
            if let Err(error) = course.step(now).await {
                course.restore(error).await?;
            }
            Ok::<(), PlayError>(())
        };
        tokio::select! {
            biased;
            stepped = step => stepped?,
            () = &mut interrupt, if grace.is_none() => {
                course.engine.stop();
                grace = Some(course.now() + GRACE);
            }
        }
    }
    tell(&mut course.engine);
    course.screen.clear();
    let elapsed = course.now();
    let losses = course.link.losses();
    let (tally, last) = course.engine.finish();
    let elapsed = if last.is_zero() { elapsed } else { last };
    Ok(Outcome { name: plan.scenario.name.clone(), tally, elapsed, losses })
}

/// The way of the load through its time.
struct Course<'a> {
    settings: &'a Settings,
    engine: Engine<'a>,
    link: Link,
    timer: Timer,
    clock: fn() -> Instant,
    start: Instant,
    screen: Screen,
}

impl Course<'_> {
    fn now(&self) -> Duration {
        (self.clock)().duration_since(self.start)
    }

    /// Does what is due, waits for what comes next, and takes it.
    async fn step(&mut self, now: Duration) -> Result<(), LinkError> {
        self.engine.expire(now);
        let more = self.engine.begin(now);
        self.link.send(self.engine.messages.drain(..)).await?;
        self.screen.show(now, &mut self.engine);
        let wake = self.engine.wake().map_or(now + PERIOD, |wake| wake.min(now + PERIOD));
        if more || wake <= now || self.engine.is_over(now) {
            // Others come to run too, and the runtime looks at the sockets.
            tokio::task::yield_now().await;
        } else {
            self.timer.arm(now, wake)?;
            tokio::select! {
                ready = self.link.ready() => ready?,
                expired = self.timer.expired() => expired?,
            }
        }
        let now = self.now();
        let engine = &mut self.engine;
        self.link.receive(|message| engine.receive(message, now))?;
        self.link.send(self.engine.messages.drain(..)).await
    }

    /// After the connection was lost: its calls are, too, and so are those that begin until there is another.
    async fn restore(&mut self, error: LinkError) -> Result<(), PlayError> {
        let via = self.settings.via;
        if matches!(self.link, Link::Udp(_)) {
            return Err(PlayError::Link { via, source: error });
        }
        let (mut pause, longest) = RECONNECT;
        let since = self.now();
        loop {
            let now = self.now();
            if now >= since + PATIENCE {
                self.engine.stop();
            }
            self.engine.give_up(Failure::Connection, now);
            self.engine.messages.clear();
            if self.engine.is_over(now) {
                return Ok(());
            }
            self.screen.show(now, &mut self.engine);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
            match Link::open(via).await {
                Ok(link) => {
                    self.link = link;
                    return Ok(());
                }
                Err(_) => self.engine.refuse("connection", self.now()),
            }
        }
    }
}

/// What the user sees while the load runs.
struct Screen {
    line: Option<Line>,
    next: Duration,
}

impl Screen {
    fn new(line: Option<Line>) -> Self {
        Self { line, next: Duration::ZERO }
    }

    fn show(&mut self, now: Duration, engine: &mut Engine<'_>) {
        tell(engine);
        if let Some(line) = self.line.as_mut().filter(|_| now >= self.next) {
            line.show(now, engine.counts());
            self.next = now + PERIOD;
        }
    }

    fn clear(&self) {
        if let Some(line) = &self.line {
            line.clear();
        }
    }
}

/// Prints what the actions of the scenario have written.
fn tell(engine: &mut Engine<'_>) {
    for text in engine.take_lines() {
        // That nobody reads any more is no reason to fail.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Time since 1970-01-01, for `[timestamp]`: the load's own clock goes on from there.
fn time_of_day() -> Duration {
    let time = clock_gettime(ClockId::Realtime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
