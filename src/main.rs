//! The `ringproof` program: arguments, configuration file, exit code.

#[path = "main/records.rs"]
mod records;

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringproof::api::key;
use ringproof::config::{self, ConfigErrors, Configuration, DnoFormat};
use ringproof::doctor::{self, Clocks};
use ringproof::e164::E164;
use ringproof::engine::{Signals, clock, examined, explain, serve};
use ringproof::load::arguments::Load;
use ringproof::load::target::Target;
use ringproof::load::verify::Clocks as LoadClocks;
use ringproof::sip::flow::Transport;
use ringproof::telemetry::log;
use ringproof::webhook::signature::new_secret;
use ringproof::webhook::signing_key::SigningKey;
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

/// A verification allocates a few hundred times, mostly in HTTP and JSON; the system's allocator takes a tenth of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Place many calls and measure: rates, codes, losses, latencies.
    Load(Box<Load>),
    /// Tell what would become of a SIP message on disk: its answer, and step by step how a call is judged. Sends nothing.
    Explain(Explain),
    /// Receipts of verifications that have ended.
    Receipt {
        #[command(subcommand)]
        command: records::Receipt,
    },
    /// The audit log.
    Audit {
        #[command(subcommand)]
        command: records::Audit,
    },
    Erase(records::Erase),
    Backup(records::Backup),
    Restore(records::Restore),
    /// The numbers that people call.
    Numbers {
        #[command(subcommand)]
        command: NumbersCommand,
    },
    /// Trunks.
    Trunk {
        #[command(subcommand)]
        command: TrunkCommand,
    },
    /// Keys: of the API, of webhooks, and the one that signs receipts.
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
    /// Mint a secret for a webhook endpoint: print it once, for `secrets` in config.toml.
    Webhook {
        /// An Ed25519 key, of which the receiver needs the public part alone.
        #[arg(long)]
        ed25519: bool,
    },
    /// Have a new key sign receipts and the audit log. What former keys signed stays valid.
    Rotate(ConfigFile),
    /// Mint an API key: print it once, and its hash for config.toml.
    New {
        /// For a live application; without it for a sandbox.
        #[arg(long)]
        live: bool,
        /// Name of the application, for the line to put into config.toml.
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
    },
}

#[derive(Subcommand)]
enum NumbersCommand {
    /// List all numbers for a Do-Not-Originate registry: they only take calls, so a call from one of them is forged.
    Dno {
        #[command(flatten)]
        file: ConfigFile,
        /// Only numbers of live applications.
        #[arg(long)]
        live: bool,
        /// Each number on a line, or the ranges as CSV or JSON.
        #[arg(long, value_enum, default_value_t = ListFormat::Lines)]
        format: ListFormat,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ListFormat {
    Lines,
    Csv,
    Json,
}

#[derive(Subcommand)]
enum TrunkCommand {
    /// Read the INVITEs of a capture (pcap or pcapng) and propose the [[trunk]] block, with the evidence for each key.
    Learn {
        /// The capture; `-` is standard input.
        capture: PathBuf,
    },
}

#[derive(Args)]
struct Explain {
    /// The message, as it was on the wire; `-` is standard input.
    message: PathBuf,
    /// The trunk that it comes over.
    #[arg(long, value_name = "NAME")]
    trunk: String,
    /// It comes over TCP, not in a datagram.
    #[arg(long)]
    tcp: bool,
    /// One JSON object in place of lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
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
        Command::Load(load) => match load.run(LoadClocks { instant: clock::instant, utc: clock::utc }) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) if error.is_misuse() => misused(&error.to_string()),
            Err(error) => failed(&error.to_string()),
        },
        Command::Explain(explain) => with_configuration(&explain.file, |configuration| explain.tell(&configuration)),
        Command::Numbers { command: NumbersCommand::Dno { file, live, format } } => {
            with_configuration(&file, |configuration| {
                let format = match format {
                    ListFormat::Lines => DnoFormat::Lines,
                    ListFormat::Csv => DnoFormat::Csv,
                    ListFormat::Json => DnoFormat::Json,
                };
                say(&config::do_not_originate(&configuration, live, format));
                ExitCode::SUCCESS
            })
        }
        Command::Trunk { command: TrunkCommand::Learn { capture } } => learn(&capture),
        Command::Key { command: KeyCommand::New { live, app } } => new_key(live, app.as_deref()),
        Command::Key { command: KeyCommand::Webhook { ed25519 } } => new_webhook_secret(ed25519),
        Command::Key { command: KeyCommand::Rotate(file) } => records::rotate(&file),
        Command::Receipt { command } => command.run(),
        Command::Audit { command } => command.run(),
        Command::Erase(erase) => erase.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
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

fn new_webhook_secret(ed25519: bool) -> ExitCode {
    let made = if ed25519 {
        SigningKey::new_ed25519().map(|(private, public)| {
            format!("{private}\n\nIt is not shown again. It belongs into `secrets` of the endpoint in config.toml; the receiver checks with\n{public}\n")
        })
    } else {
        new_secret().map(|secret| {
            format!("{secret}\n\nIt is not shown again. It belongs into `secrets` of the endpoint in config.toml, and to the receiver.\n")
        })
    };
    match made {
        Ok(text) => {
            say(&text);
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

/// Largest message that is explained: what a datagram can hold.
const MAX_MESSAGE: u64 = 65_535;

impl Explain {
    fn tell(&self, configuration: &Configuration) -> ExitCode {
        let trunk = match explain::trunk_named(configuration, &self.trunk) {
            Ok(trunk) => trunk,
            Err(error) => return misused(&error.to_string()),
        };
        let mut bytes = Vec::new();
        let read = open(&self.message).and_then(|file| file.take(MAX_MESSAGE + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return misused(&format!("{} cannot be read: {error}", self.message.display()));
        }
        if bytes.len() as u64 > MAX_MESSAGE {
            return misused(&format!("{} is longer than a message can be", self.message.display()));
        }
        tell(&explain::explain(configuration, trunk, &bytes, self.tcp), self.json)
    }
}

fn tell(explained: &explain::Explained, json: bool) -> ExitCode {
    if json {
        let text = serde_json::to_string_pretty(explained).expect("texts always become JSON");
        say(&format!("{text}\n"));
    } else {
        say(&explained.to_string());
    }
    ExitCode::SUCCESS
}

fn learn(capture: &Path) -> ExitCode {
    let read = open(capture).map_err(|error| format!("{} cannot be read: {error}", capture.display()));
    match read.and_then(|file| ringproof::learn::learn(file).map_err(|error| error.to_string())) {
        Ok(learned) => {
            say(&learned.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => misused(&error),
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    if path == Path::new("-") { Ok(Box::new(std::io::stdin())) } else { Ok(Box::new(std::fs::File::open(path)?)) }
}

/// Prints; that nobody reads any more is no reason to fail.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn misused(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(MISUSE)
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
    /// Tell as well how this configuration judges the call, step by step.
    #[arg(long)]
    explain: bool,
    /// With --explain: the trunk that the call comes over, where it is not the one of this machine's address.
    #[arg(long, value_name = "NAME", requires = "explain")]
    trunk: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

impl Call {
    /// Judges the INVITE as it is about to be sent.
    fn explain(&self, configuration: &Configuration) -> ExitCode {
        let target = self.via.address;
        let any: std::net::IpAddr = if target.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        // Connecting a datagram socket sends nothing and tells the address that packets would leave from.
        let local = std::net::UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        let local = match local {
            Ok(local) => local,
            Err(error) => return failed(&format!("{target} cannot be reached: {error}")),
        };
        let trunk = match &self.trunk {
            Some(name) => explain::trunk_named(configuration, name),
            None => explain::trunk_of(configuration, local.ip()),
        };
        match trunk {
            Ok(trunk) => {
                let invite = ringproof::load::invite::invite((self.from, self.to), (local, target), &self.headers);
                let connected = self.via.transport != Transport::Udp;
                println!();
                tell(&explain::explain(configuration, trunk, invite.as_bytes(), connected), false)
            }
            Err(error) => misused(&error.to_string()),
        }
    }

    fn place(self) -> ExitCode {
        if self.explain {
            let told = with_configuration(&self.file, |configuration| self.explain(&configuration));
            if told != ExitCode::SUCCESS {
                return told;
            }
            println!();
        }
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
