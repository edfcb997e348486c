//! The arguments of `ringproof load scenario`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::run::{Outcome, Settings, run};
use crate::load::arguments::{Common, LoadError, parse_duration, parse_via};
use crate::load::report::Run;
use crate::load::target::Target;

/// The arguments of `ringproof load scenario`.
#[derive(Debug, Args)]
pub struct ScenarioLoad {
    /// The scenario: XML as SIPp reads it, of a client.
    #[arg(value_name = "FILE.xml")]
    file: PathBuf,
    /// Where to send the calls, all from one socket or over one connection.
    #[arg(long, value_name = "udp|tcp:HOST:PORT", default_value = "udp:127.0.0.1:5060", value_parser = parse_via)]
    via: Target,
    /// Values of the keywords field0, field1, ..: a CSV parted by semicolons. Its first line is SEQUENTIAL or RANDOM,
    /// each further one is for a call, and they are used again when all are used.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Value of the keyword service.
    #[arg(long, value_name = "SERVICE", default_value = "service")]
    to: String,
    /// Value of a keyword of your own. May be repeated.
    #[arg(long = "key", value_name = "NAME=VALUE", value_parser = parse_key)]
    keys: Vec<(String, String)>,
    #[command(flatten)]
    common: Common,
    /// Give a call up that waits for a message for so many seconds, where the scenario says nothing else.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_duration)]
    timeout: Duration,
}

impl ScenarioLoad {
    /// Plays the scenario, writes the reports, and gives whether all went well: something ended, and nothing was lost.
    ///
    /// # Errors
    /// A [`LoadError`].
    pub fn run(self, clock: fn() -> Instant) -> Result<bool, LoadError> {
        let settings = self.settings(getrandom::u64()?);
        let Outcome { name, tally, elapsed, losses } = run(&settings, clock)?;
        let settings = self.shown(name);
        self.common.tell(&Run { title: "ringproof load scenario", settings, elapsed, tally: &tally })?;
        losses.tell("");
        Ok(tally.lost == 0 && tally.ended > 0)
    }

    fn settings(&self, seed: u64) -> Settings {
        Settings {
            scenario: self.file.clone(),
            fields: self.csv.clone(),
            via: self.via,
            service: self.to.clone(),
            keys: self.keys.clone(),
            pace: self.common.pace(),
            bounds: self.common.bounds(),
            timeout: self.timeout,
            seed,
        }
    }

    /// What was asked for, for a report. Values of the user's own keywords may be secret.
    fn shown(&self, name: String) -> Vec<(String, String)> {
        let mut shown = vec![
            ("scenario".to_owned(), name),
            ("file".to_owned(), self.file.display().to_string()),
            ("via".to_owned(), self.via.to_string()),
        ];
        shown.extend(self.csv.as_ref().map(|path| ("csv".to_owned(), path.display().to_string())));
        shown.extend(self.common.settings(self.common.pace()));
        shown.push(("timeout".to_owned(), format!("{} s", self.timeout.as_secs_f64())));
        let names: Vec<&str> = self.keys.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            shown.push(("keys".to_owned(), names.join(", ")));
        }
        shown
    }
}

fn parse_key(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("has no '='; write name=value")?;
    if name.is_empty() || name.contains(['[', ']', '\r', '\n']) {
        return Err("has a name that cannot stand between [ and ]".to_owned());
    }
    if value.contains(['\r', '\n', '\0']) {
        return Err("has a CR, LF or NUL".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::load::pace::Pace;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        load: ScenarioLoad,
    }

    #[test]
    fn a_scenario_alone_is_played_to_this_machine() {
        let load = load(&[]).unwrap();
        let settings = load.settings(1);
        assert_eq!((settings.via.to_string().as_str(), settings.service.as_str()), ("udp:127.0.0.1:5060", "service"));
        assert_eq!((settings.pace, settings.timeout), (Pace::Closed { window: 64 }, Duration::from_secs(5)));
    }

    #[test]
    fn the_report_does_not_tell_the_values_of_keywords() {
        let load = load(&["--key", "a=secret=1", "--key", "b=", "--csv", "c.csv"]).unwrap();
        assert_eq!(load.keys, [("a".to_owned(), "secret=1".to_owned()), ("b".to_owned(), String::new())]);
        let shown = load.shown("missed call".to_owned());
        assert!(shown.contains(&("keys".to_owned(), "a, b".to_owned())), "{shown:?}");
        assert!(shown.contains(&("csv".to_owned(), "c.csv".to_owned())), "{shown:?}");
    }

    #[test]
    fn wrong_use_is_told() {
        for arguments in [["--key", "a"], ["--key", "=a"], ["--key", "[a]=b"], ["--key", "a=b\r\n"], ["--timeout", "0"]]
        {
            assert!(load(&arguments).is_err(), "{arguments:?}");
        }
    }

    fn load(more: &[&str]) -> Result<ScenarioLoad, clap::Error> {
        Ok(Arguments::try_parse_from(["scenario", "caller.xml"].iter().chain(more))?.load)
    }
}
