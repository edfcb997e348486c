//! The arguments of `ringproof load`, and what is done with what came of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::flood::numbers::{Numbers, Range};
use super::flood::{self, FloodError, Lengths, Outcome, Plot};
use super::pace::{Bounds, Pace};
use super::report::Run;
use super::scenario::PlayError;
use super::scenario::arguments::ScenarioLoad;
use super::slab::ROOM;
use super::target::Target;
use super::verify::Clocks;
use super::verify::arguments::{ArgumentError, VerifyLoad};
use crate::sip::flow::Transport;

/// Calls in flight at once, where neither a window nor a rate is asked for.
const WINDOW: usize = 64;
/// How long calls begin, where neither a duration nor a number of calls is asked for.
const DURATION: Duration = Duration::from_secs(10);
/// How long calls begin at most, where their number is asked for.
const LONGEST: Duration = Duration::from_hours(24);

/// Many calls, placed and measured.
#[derive(Debug, Args)]
pub struct Load {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Place calls as a carrier would: INVITE, final response, ACK, over UDP or TCP. Exit code 1 when a call is lost.
    Sip(SipLoad),
    /// Verify phones from end to end: create over the API, call, receive the signed webhook. Exit code 1 when one is lost.
    Verify(VerifyLoad),
    /// Play a client scenario of SIPp, call by call as it says. Exit code 1 when a call goes otherwise.
    Scenario(ScenarioLoad),
}

/// What every load has: when calls begin, how many, and where the report goes.
#[derive(Debug, Args)]
pub struct Common {
    /// Begin so many a second, whatever the peer does; latencies count from the moment that the rate gives a call.
    /// Without it, a call begins when another ends (--window).
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Let the rate rise evenly from 0 for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "rate")]
    pub ramp: Option<Duration>,
    /// Have so many in flight at once [default: 64].
    #[arg(long, value_name = "CALLS", value_parser = parse_window, conflicts_with = "rate")]
    pub window: Option<usize>,
    /// Begin calls for so many seconds [default: 10, or as long as --calls takes].
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Begin so many calls at most.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: Option<u64>,
    /// Write the report as JSON to a file; `-` is standard output, and the table then goes to standard error.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as a page with pictures to a file.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(to_a_file))]
    pub report: Option<PathBuf>,
}

/// The arguments of `ringproof load sip`.
#[derive(Debug, Args)]
pub struct SipLoad {
    /// Numbers to call: one, or the first and how many. May be repeated.
    #[arg(long, value_name = "NUMBER[/COUNT]", required = true)]
    to: Vec<Range>,
    /// The callers' numbers, in the same form. May be repeated.
    #[arg(long, value_name = "NUMBER[/COUNT]", required = true)]
    from: Vec<Range>,
    /// Where to send the calls.
    #[arg(long, value_name = "udp|tcp:HOST:PORT", default_value = "udp:127.0.0.1:5060", value_parser = parse_via)]
    via: Target,
    #[command(flatten)]
    common: Common,
    /// Threads; over UDP each has a socket and so a port of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Connections over TCP, spread over the threads.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// Make the messages of all calls equally long: the system then sends them in runs, which real traffic never gives.
    #[arg(long)]
    equal_lengths: bool,
    /// A header field to add to each INVITE; one that the command writes too is replaced. May be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Give a call up that has no final response after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_duration)]
    timeout: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A window smaller than what shares it.
    #[error("--window {window} gives no call to some of {shares} {what}; make it {shares} at least")]
    Window {
        /// The window asked for.
        window: usize,
        /// How many share it.
        shares: usize,
        /// What they are.
        what: &'static str,
    },
    /// The calls could not be placed.
    #[error(transparent)]
    Flood(#[from] FloodError),
    /// Nothing could be verified.
    #[error(transparent)]
    Verify(#[from] ArgumentError),
    /// The scenario could not be played.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The report cannot be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl LoadError {
    /// Whether the command was used wrongly, so that trying again does not help.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Window { .. } | Self::Flood(FloodError::TooLong { .. }) => true,
            Self::Verify(error) => error.is_misuse(),
            Self::Play(error) => error.is_misuse(),
            _ => false,
        }
    }
}

impl Load {
    /// Places the load, writes the reports, and gives whether all went well: something ended, and nothing was lost.
    ///
    /// # Errors
    /// A [`LoadError`].
    pub fn run(self, clocks: Clocks) -> Result<bool, LoadError> {
        match self.part {
            Part::Sip(sip) => sip.run(clocks),
            Part::Verify(verify) => verify.run(clocks),
            Part::Scenario(scenario) => scenario.run(clocks.instant),
        }
    }
}

impl Common {
    /// When calls begin.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self.rate {
            Some(rate) => Pace::Open { rate, ramp: self.ramp.unwrap_or_default() },
            None => Pace::Closed { window: self.window.unwrap_or(WINDOW) },
        }
    }

    /// Where the load ends.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let default = if self.calls.is_some() { LONGEST } else { DURATION };
        Bounds { duration: self.duration.unwrap_or(default), calls: self.calls }
    }

    /// What was asked for, for a report, with the pace that is in force.
    #[must_use]
    pub fn settings(&self, pace: Pace) -> Vec<(String, String)> {
        let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
        let mut settings = match pace {
            Pace::Open { rate, .. } => vec![("rate".to_owned(), format!("{rate}/s"))],
            Pace::Closed { window } => vec![("window".to_owned(), window.to_string())],
        };
        settings.extend(self.ramp.map(|ramp| ("ramp".to_owned(), seconds(ramp))));
        if self.duration.is_some() || self.calls.is_none() {
            settings.push(("duration".to_owned(), seconds(self.bounds().duration)));
        }
        settings.extend(self.calls.map(|calls| ("calls".to_owned(), calls.to_string())));
        settings
    }

    /// Prints the table and writes the files that were asked for.
    ///
    /// # Errors
    /// `LoadError::Write` with the file.
    pub fn tell(&self, run: &Run<'_>) -> Result<(), LoadError> {
        let to_stdout = self.json.as_deref().is_some_and(is_stdout);
        // That nobody reads any more is no reason to fail.
        let _ = if to_stdout {
            io::stderr().write_all(run.table().as_bytes())
        } else {
            io::stdout().write_all(run.table().as_bytes())
        };
        if let Some(path) = &self.json {
            let text = run.json() + "\n";
            let written = if to_stdout { io::stdout().write_all(text.as_bytes()) } else { std::fs::write(path, text) };
            written.map_err(|source| LoadError::Write { path: path.clone(), source })?;
        }
        if let Some(path) = &self.report {
            std::fs::write(path, run.html()).map_err(|source| LoadError::Write { path: path.clone(), source })?;
        }
        Ok(())
    }
}

impl SipLoad {
    fn run(self, clocks: Clocks) -> Result<bool, LoadError> {
        let settings = self.settings()?;
        let shown = self.shown(settings.pace);
        let Outcome { tally, elapsed, losses } = flood::run(settings, clocks.instant)?;
        self.common.tell(&Run { title: "ringproof load sip", settings: shown, elapsed, tally: &tally })?;
        losses.tell(", or use more --threads");
        Ok(tally.lost == 0 && tally.ended > 0)
    }

    fn settings(&self) -> Result<flood::Settings, LoadError> {
        let (threads, connections) = (usize::from(self.threads), usize::from(self.connections));
        let (shares, what) = match self.via.transport {
            Transport::Udp => (threads, "threads"),
            Transport::Tcp | Transport::Tls => (connections, "connections"),
        };
        let mut pace = self.common.pace();
        match &mut pace {
            // The default is made to fit.
            Pace::Closed { window } if self.common.window.is_none() => *window = shares.max(*window),
            Pace::Closed { window } if *window < shares => {
                return Err(LoadError::Window { window: *window, shares, what });
            }
            _ => {}
        }
        let numbers = |ranges: &[Range]| Numbers::new(ranges).expect("the argument is required, and no range is empty");
        let plot = Plot {
            from: numbers(&self.from),
            to: numbers(&self.to),
            headers: self.headers.clone(),
            lengths: if self.equal_lengths { Lengths::Equal } else { Lengths::Varied },
            seed: getrandom::u64()?,
        };
        let (via, bounds, timeout) = (self.via, self.common.bounds(), self.timeout);
        Ok(flood::Settings { via, plot, pace, bounds, timeout, threads, connections })
    }

    /// What was asked for, for a report, with the pace that is in force.
    fn shown(&self, pace: Pace) -> Vec<(String, String)> {
        let list = |ranges: &[Range]| ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ");
        let mut shown = vec![
            ("via".to_owned(), self.via.to_string()),
            ("to".to_owned(), list(&self.to)),
            ("from".to_owned(), list(&self.from)),
        ];
        shown.extend(self.common.settings(pace));
        shown.push(("threads".to_owned(), self.threads.to_string()));
        if self.via.transport != Transport::Udp {
            shown.push(("connections".to_owned(), self.connections.to_string()));
        }
        shown.push(("timeout".to_owned(), format!("{} s", self.timeout.as_secs_f64())));
        let lengths = if self.equal_lengths { "equal" } else { "varied" };
        shown.push(("lengths".to_owned(), lengths.to_owned()));
        shown.extend(self.headers.iter().map(|(name, value)| (format!("header {name}"), value.clone())));
        shown
    }
}

/// Reads `--via`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_via(text: &str) -> Result<Target, String> {
    super::target::parse_via(text).map_err(|error| error.to_string())
}

/// Reads `--header`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_header(text: &str) -> Result<(String, String), String> {
    super::header::parse_header(text).map_err(|error| error.to_string())
}

/// Reads a span of time that is more than none, in seconds.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("is not a number of seconds above 0 and up to {}", LONGEST.as_secs());
    parse_seconds(text).ok().filter(|time| !time.is_zero()).ok_or_else(wrong)
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads `--report`.
fn to_a_file(path: PathBuf) -> Result<PathBuf, &'static str> {
    if is_stdout(&path) { Err("is standard output, which takes JSON alone; name a file") } else { Ok(path) }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| format!("is not a number of seconds from 0 to {}", LONGEST.as_secs()))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.001..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "is not a rate from 0.001 to 10000000 calls a second".to_owned())
}

fn parse_window(text: &str) -> Result<usize, String> {
    let window = text.parse().ok().filter(|window| (1..=ROOM).contains(window));
    window.ok_or_else(|| format!("is not a number of calls from 1 to {ROOM}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        load: Load,
    }

    #[test]
    fn without_a_rate_the_loop_is_closed_and_takes_ten_seconds() {
        let sip = sip(&[]).unwrap();
        let settings = sip.settings().unwrap();
        assert_eq!(settings.pace, Pace::Closed { window: 64 });
        assert_eq!(settings.bounds, Bounds { duration: Duration::from_secs(10), calls: None });
        assert_eq!((settings.timeout, settings.threads), (Duration::from_secs(5), 1));
        assert_eq!((settings.plot.from.total(), settings.plot.to.total()), (1_000, 101));
        assert!(sip.shown(settings.pace).contains(&("to".to_owned(), "+966115000000/100, +442079460200".to_owned())));
    }

    #[test]
    fn a_rate_opens_the_loop_and_a_number_of_calls_takes_its_time() {
        let sip = sip(&["--rate", "2500.5", "--ramp", "3", "--calls", "9"]).unwrap();
        assert_eq!(sip.common.pace(), Pace::Open { rate: 2_500.5, ramp: Duration::from_secs(3) });
        assert_eq!(sip.common.bounds(), Bounds { duration: LONGEST, calls: Some(9) });
        let shown = sip.common.settings(sip.common.pace());
        let shown: Vec<String> = shown.into_iter().map(|(name, value)| name + "=" + &value).collect();
        assert_eq!(shown, ["rate=2500.5/s", "ramp=3 s", "calls=9"]);
    }

    #[test]
    fn a_window_has_a_call_for_everyone_who_shares_it() {
        let error = sip(&["--window", "3", "--threads", "4"]).unwrap().settings().unwrap_err();
        assert!(error.is_misuse());
        assert_eq!(error.to_string(), "--window 3 gives no call to some of 4 threads; make it 4 at least");
        let many = ["--via", "tcp:127.0.0.1:5060", "--connections", "100", "--threads", "4"];
        let sip = sip(&many).unwrap();
        let pace = sip.settings().unwrap().pace;
        assert_eq!(pace, Pace::Closed { window: 100 });
        assert!(sip.shown(pace).contains(&("window".to_owned(), "100".to_owned())), "the report has the one in force");
    }

    #[test]
    fn wrong_use_is_told() {
        let wrong: [&[&str]; 12] = [
            &["--rate", "0"],
            &["--rate", "NaN"],
            &["--rate", "1", "--window", "1"],
            &["--ramp", "1"],
            &["--window", "65537"],
            &["--duration", "0"],
            &["--duration", "-1"],
            &["--calls", "0"],
            &["--threads", "65"],
            &["--timeout", "inf"],
            &["--header", "Via: x"],
            &["--report", "-"],
        ];
        for arguments in wrong {
            assert!(sip(arguments).is_err(), "{arguments:?}");
        }
    }

    fn sip(more: &[&str]) -> Result<SipLoad, clap::Error> {
        let own = ["load", "sip", "--from", "+966500000000/1000", "--to", "+966115000000/100", "--to", "+442079460200"];
        match Arguments::try_parse_from(own.iter().chain(more))?.load.part {
            Part::Sip(sip) => Ok(sip),
            Part::Verify(_) | Part::Scenario(_) => panic!("another part was asked for"),
        }
    }
}
