//! The `ringproof` program: arguments, configuration file, exit code.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringproof::api::key;
use ringproof::config::{self, ConfigErrors, Configuration};
use ringproof::doctor::{self, Clocks};
use ringproof::e164::E164;
use ringproof::engine::{Signals, clock, examined, serve};
use ringproof::load::target::Target;
use ringproof::telemetry::log;
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

/// Wrong use or wrong configuration.
const MISUSE: u8 = 2;

/// Missed-call verification: a SIP stack that refuses the call, matches the caller and tells you by webhook.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node: print a line for each listener, then `ready`. SIGTERM drains and stops, SIGHUP reloads.
    Serve(ConfigFile),
    /// Check the configuration file and print the settings in effect, secrets masked.
    Check(ConfigFile),
    /// Look at the machine: ports, buffers, clock, limits, disk, database, certificates, webhooks. Exit code 1 when
    /// something fails. May run beside a node; sends nothing.
    Doctor(Doctor),
    /// Place one SIP call as a caller's network would and print its messages.
    Call(Call),
    /// API keys.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Mint a key: print it once, and its hash for config.toml.
    New {
        /// For a live application; without it for a sandbox.
        #[arg(long)]
        live: bool,
        /// Name of the application, for the line to put into config.toml.
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(file) => run(&file),
        Command::Check(file) => with_configuration(&file, |configuration| {
            print!("{}", config::effective(&configuration));
            for warning in config::warnings(&configuration, clock::utc()) {
                eprintln!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }),
        Command::Doctor(doctor) => with_configuration(&doctor.file, |configuration| doctor.examine(&configuration)),
        Command::Call(call) => call.place(),
        Command::Key { command: KeyCommand::New { live, app } } => new_key(live, app.as_deref()),
    }
}

fn with_configuration(file: &ConfigFile, work: impl FnOnce(Configuration) -> ExitCode) -> ExitCode {
    match config::load(&file.config) {
        Ok(configuration) => work(configuration),
        Err(errors) => {
            let errors: ConfigErrors = errors;
            eprintln!("{errors}");
            ExitCode::from(MISUSE)
        }
    }
}

fn run(file: &ConfigFile) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the system gives no threads: {error}")),
    };
    // Before anything takes time: a SIGHUP during the start is a reload after it, not the end of the process.
    let signals = {
        let _context = runtime.enter();
        Signals::new()
    };
    match signals {
        Ok(signals) => with_configuration(file, |configuration| run_with(file, configuration, signals, runtime)),
        Err(error) => failed(&format!("the system refuses a signal handler: {error}")),
    }
}

fn run_with(file: &ConfigFile, configuration: Configuration, signals: Signals, runtime: Runtime) -> ExitCode {
    if let Err(error) = log::init() {
        eprintln!(
            "RINGPROOF_LOG is not a filter ({error}); write for example RINGPROOF_LOG=info or ringproof::webhook=debug"
        );
        return ExitCode::from(MISUSE);
    }
    for warning in config::warnings(&configuration, clock::utc()) {
        tracing::warn!("{warning}");
    }
    let served = runtime.block_on(serve(&file.config, configuration, signals));
    // A thread that hangs in a read or write of a sick disk must not hold the process.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_misuse() => {
            eprintln!("{error}");
            ExitCode::from(MISUSE)
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn new_key(live: bool, application: Option<&str>) -> ExitCode {
    match key::mint(live) {
        Ok((text, hash)) => {
            println!("{}", text.expose_secret());
            println!();
            println!(
                "It is not shown again. The line for [[application]] {} in config.toml:",
                application.unwrap_or("")
            );
            println!("keys = [\"sha256:{}\"]", key::hex(&hash));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&format!("no random numbers: {error}")),
    }
}

#[derive(Args)]
struct Doctor {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object in place of lines.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    fn examine(&self, configuration: &Configuration) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&format!("the system gives no event loop: {error}")),
        };
        let clocks = Clocks { utc: clock::utc, instant: clock::instant };
        let report = runtime.block_on(doctor::examine(examined(configuration), clocks));
        // A thread that hangs in a sick disk must not hold the process.
        runtime.shutdown_background();
        let out = std::io::stdout();
        let colored = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let text = if self.json { report.to_json() + "\n" } else { report.to_text(colored) };
        // The exit code tells also where nobody reads.
        let _ = (&out).write_all(text.as_bytes());
        if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[derive(Args)]
struct Call {
    /// The caller's number, `+` and digits.
    #[arg(long, value_name = "NUMBER")]
    from: E164,
    /// The number to call, `+` and digits.
    #[arg(long, value_name = "NUMBER")]
    to: E164,
    /// Where to send the call.
    #[arg(long, value_name = "udp|tcp:HOST:PORT", default_value = "udp:127.0.0.1:5060", value_parser = parse_via)]
    via: Target,
    /// A header field to add; From and P-Asserted-Identity replace the command's own. May be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
}

impl Call {
    fn place(self) -> ExitCode {
        let mut settings = ringproof::load::call::Settings::new(self.from, self.to, self.via);
        settings.headers = self.headers;
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&format!("the system gives no event loop: {error}")),
        };
        match runtime.block_on(ringproof::load::call::place(&settings, clock::instant, &mut std::io::stdout())) {
            Ok(code) if code.is_refusal() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => failed(&error.to_string()),
        }
    }
}

fn parse_via(text: &str) -> Result<Target, String> {
    ringproof::load::target::parse_via(text).map_err(|error| error.to_string())
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    ringproof::load::header::parse_header(text).map_err(|error| error.to_string())
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
