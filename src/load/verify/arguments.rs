//! The arguments of `ringproof load verify`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::secret::{self, SecretError};
use super::{Api, Clocks, Outcome, Protocol, Settings, VerifyError, run};
use crate::load::arguments::{Common, LoadError, parse_duration, parse_via};
use crate::load::flood::numbers::{Numbers, Range};
use crate::load::report::Run;
use crate::load::target::Target;
use crate::webhook::signature::{self, parse_secret};

/// Verifications from their creation to their webhook.
#[derive(Debug, Args)]
pub struct VerifyLoad {
    /// The node's API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = parse_api)]
    api: Api,
    /// The API key: `env:NAME`, `file:PATH` or the key itself.
    #[arg(long, value_name = "KEY", default_value = "env:RINGPROOF_KEY", value_parser = hidden)]
    key: SecretString,
    /// Phones to verify: one, or the first and how many. May be repeated. With fewer than are verified within ten
    /// minutes, the node's limits for each phone refuse the rest.
    #[arg(long, value_name = "NUMBER[/COUNT]", required = true)]
    phones: Vec<Range>,
    /// The node's SIP listener, where the calls go.
    #[arg(long, value_name = "udp|tcp:HOST:PORT", default_value = "udp:127.0.0.1:5060", value_parser = parse_via)]
    via: Target,
    /// Where webhooks are received: the address in the node's [[application.webhook]] url.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// The secret of that webhook: `env:NAME`, `file:PATH` or the secret itself. May be repeated.
    #[arg(long, value_name = "SECRET", default_value = "env:RINGPROOF_SECRET", value_parser = hidden)]
    secret: Vec<SecretString>,
    #[command(flatten)]
    common: Common,
    /// Connections to the API; over HTTP/1.1 as many creations as these are under way at once.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    api_connections: u16,
    /// Speak HTTP/2 to the API, many requests at once on each connection.
    #[arg(long)]
    http2: bool,
    /// Give a verification up that has no webhook after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_duration)]
    timeout: Duration,
}

/// Why arguments are of no use.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// `--key` leads to no key.
    #[error("--key: {0}")]
    Key(#[source] SecretError),
    /// `--secret` leads to no text.
    #[error("--secret: {0}")]
    Secret(#[source] SecretError),
    /// What `--secret` leads to is no secret of a webhook.
    #[error("--secret: what is given {0}; it is the one in the node's [[application.webhook]] secrets")]
    Form(#[from] signature::SecretError),
    /// The load itself.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl ArgumentError {
    /// Whether the command line, or what it names, is to be corrected.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        match self {
            Self::Key(_) | Self::Secret(_) | Self::Form(_) => true,
            Self::Verify(error) => error.is_misuse(),
        }
    }
}

impl VerifyLoad {
    /// Verifies, writes the reports, and gives whether all went well: something ended, and nothing was lost.
    ///
    /// # Errors
    /// A [`LoadError`].
    pub fn run(self, clocks: Clocks) -> Result<bool, LoadError> {
        let settings = self.settings(|name| std::env::var(name).ok())?;
        let Outcome { tally, elapsed, losses } = run(settings, clocks).map_err(ArgumentError::Verify)?;
        self.common.tell(&Run { title: "ringproof load verify", settings: self.shown(), elapsed, tally: &tally })?;
        losses.tell("");
        Ok(tally.lost == 0 && tally.ended > 0)
    }

    fn settings(&self, env: impl Fn(&str) -> Option<String>) -> Result<Settings, ArgumentError> {
        let key = secret::resolve(self.key.expose_secret(), &env).map_err(ArgumentError::Key)?;
        let mut secrets = Vec::with_capacity(self.secret.len());
        for text in &self.secret {
            let text = secret::resolve(text.expose_secret(), &env).map_err(ArgumentError::Secret)?;
            secrets.push(parse_secret(text.expose_secret())?);
        }
        Ok(Settings {
            api: self.api.clone(),
            key,
            protocol: if self.http2 { Protocol::Http2 } else { Protocol::Http1 },
            connections: usize::from(self.api_connections),
            phones: Numbers::new(&self.phones).expect("the argument is required, and no range is empty"),
            via: self.via,
            listen: self.listen,
            secrets,
            pace: self.common.pace(),
            bounds: self.common.bounds(),
            timeout: self.timeout,
        })
    }

    /// What was asked for, for a report. No secret is in it.
    fn shown(&self) -> Vec<(String, String)> {
        let phones: Vec<String> = self.phones.iter().map(Range::to_string).collect();
        let mut shown = vec![
            ("api".to_owned(), self.api.to_string()),
            ("via".to_owned(), self.via.to_string()),
            ("listen".to_owned(), self.listen.to_string()),
            ("phones".to_owned(), phones.join(", ")),
        ];
        shown.extend(self.common.settings(self.common.pace()));
        let protocol = if self.http2 { "HTTP/2" } else { "HTTP/1.1" };
        shown.push(("api connections".to_owned(), format!("{} of {protocol}", self.api_connections)));
        shown.push(("timeout".to_owned(), format!("{} s", self.timeout.as_secs_f64())));
        shown
    }
}

/// Keeps what may be a secret from being printed with the arguments.
#[allow(clippy::unnecessary_wraps, reason = "the form of a value parser")]
fn hidden(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

fn parse_api(text: &str) -> Result<Api, String> {
    super::parse_api(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::load::pace::Pace;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        verify: VerifyLoad,
    }

    #[test]
    fn key_and_secret_come_from_the_environment() {
        let arguments = parse(&[]);
        let env = |name: &str| match name {
            "RINGPROOF_KEY" => Some("rp_test_x".to_owned()),
            "RINGPROOF_SECRET" => Some(SECRET.to_owned()),
            _ => None,
        };
        let settings = arguments.settings(env).unwrap();
        assert_eq!(settings.key.expose_secret(), "rp_test_x");
        assert_eq!((settings.secrets.len(), settings.connections, settings.protocol), (1, 64, Protocol::Http1));
        assert_eq!(settings.pace, Pace::Closed { window: 64 });
        assert_eq!(settings.timeout, Duration::from_secs(30));
        assert!(matches!(arguments.settings(|_| None), Err(ArgumentError::Key(_))));
    }

    #[test]
    fn a_secret_that_is_none_is_told_without_it() {
        let arguments = parse(&["--key", "rp_test_x", "--secret", "hush"]);
        let error = arguments.settings(|_| None).unwrap_err();
        assert!(error.is_misuse());
        assert!(!error.to_string().contains("hush"), "{error}");
        assert!(arguments.shown().iter().all(|(_, value)| !value.contains("hush") && !value.contains("rp_test_x")));
    }

    fn parse(more: &[&str]) -> VerifyLoad {
        let own = ["verify", "--phones", "+966500000000/1000"];
        Arguments::try_parse_from(own.iter().chain(more)).unwrap().verify
    }
}
