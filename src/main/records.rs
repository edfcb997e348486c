//! The commands about what is kept: receipts, the audit log, erasure, backups.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use ringproof::audit::chain::Chain;
use ringproof::audit::check::{Checker, Fault, Findings};
use ringproof::audit::kind::Kind;
use ringproof::audit::{checkpoint, export};
use ringproof::config::Configuration;
use ringproof::e164::E164;
use ringproof::engine::data_dir::{DATABASE, read_signing_keys};
use ringproof::engine::operator::{self, PutBack};
use ringproof::receipt::keys::PublicKeys;
use ringproof::receipt::statement;
use ringproof::store::{AuditLog, AuditRow, StoreError};

use super::{ConfigFile, failed, misused, open, say, with_configuration};

/// Longest receipt that is read.
const MAX_RECEIPT: u64 = 1 << 20;

#[derive(Subcommand)]
pub enum Receipt {
    /// Check a receipt offline and print what it says. Exit code 1 where it is not genuine.
    Verify {
        /// The receipt: the answer of `GET /v1/verifications/{id}/receipt`, or its `jws` alone; `-` is standard input.
        receipt: PathBuf,
        /// The public keys, as `/.well-known/jwks.json` gives them; without it those of this node's data directory.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Subcommand)]
pub enum Audit {
    /// Find every entry that was changed, removed or moved, and name it. May run beside a node. Exit code 1 where there
    /// is one.
    Verify {
        /// Check an export (JSON Lines) in place of the database.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// Checkpoints that were kept elsewhere, one on a line: a log that was rewritten or cut short contradicts them.
        /// May be repeated.
        #[arg(long, value_name = "FILE")]
        against: Vec<PathBuf>,
        /// The public keys, as `/.well-known/jwks.json` gives them; without it those of this node's data directory.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the log, the oldest entry first.
    Export {
        /// JSON Lines, or comma-separated values.
        #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
        format: ExportFormat,
        /// Entries of this kind alone, such as verification.ended.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        kind: Option<Kind>,
        /// The place whose time of day stands beside UTC, such as Asia/Riyadh; without it the system's own.
        #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
        timezone: Option<TimeZone>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the signed checkpoints, one on a line, to be kept where the node's own user cannot write.
    Checkpoints(ConfigFile),
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ExportFormat {
    Jsonl,
    Csv,
}

/// Remove a person's data everywhere, and say what was removed. The node may run.
#[derive(Args)]
pub struct Erase {
    /// The phone, `+` and digits.
    #[arg(long, value_name = "NUMBER")]
    phone: E164,
    /// Only what this application holds.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

/// Copy the node's state into a new directory, as of one moment. The node may run.
#[derive(Args)]
pub struct Backup {
    /// The directory to make.
    to: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
}

/// Put a backup back, and erase in it again what was erased since. The node must be stopped.
#[derive(Args)]
pub struct Restore {
    /// The backup.
    from: PathBuf,
    /// Exports of audit logs (JSON Lines) that tell of erasures after the backup. May be repeated.
    #[arg(long, value_name = "FILE")]
    audit: Vec<PathBuf>,
    /// Set aside the state that is in the data directory.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    file: ConfigFile,
}

impl Receipt {
    pub fn run(self) -> ExitCode {
        let Self::Verify { receipt, keys, file } = self;
        with_keys(keys.as_deref(), &file, |keys| {
            let mut text = String::new();
            let read = open(&receipt).and_then(|from| from.take(MAX_RECEIPT).read_to_string(&mut text));
            if let Err(error) = read {
                return misused(&format!("{} cannot be read: {error}", receipt.display()));
            }
            let answer: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let jws = answer.as_ref().and_then(|answer| answer["jws"].as_str()).unwrap_or(text.trim());
            match statement::verify(keys, jws) {
                Ok(payload) => {
                    let value: serde_json::Value = serde_json::from_str(&payload).unwrap_or_default();
                    let pretty = serde_json::to_string_pretty(&value).unwrap_or(payload);
                    say(&format!("{pretty}\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error.to_string()),
            }
        })
    }
}

impl Audit {
    pub fn run(self) -> ExitCode {
        match self {
            Self::Verify { log, against, keys, file } => with_keys(keys.as_deref(), &file, |keys| {
                let found = if let Some(log) = log {
                    check_export(&log, keys, &against)
                } else {
                    let mut found = Ok(Findings::default());
                    let code = with_configuration(&file, |configuration| {
                        found = check_database(&configuration.data_dir.join(DATABASE), keys, &against);
                        ExitCode::SUCCESS
                    });
                    if code != ExitCode::SUCCESS {
                        return code;
                    }
                    found
                };
                match found {
                    Ok(findings) => tell(&findings),
                    Err(error) => misused(&error),
                }
            }),
            Self::Export { format, kind, timezone, file } => with_configuration(&file, |configuration| {
                let zone = timezone.unwrap_or_else(TimeZone::system);
                let written = write_export(&configuration.data_dir.join(DATABASE), format, kind, &zone);
                ended(written)
            }),
            Self::Checkpoints(file) => with_configuration(&file, |configuration| {
                let read = || -> Result<(), ExportError> {
                    let mut out = BufWriter::new(io::stdout().lock());
                    for (_, jws) in AuditLog::open(&configuration.data_dir.join(DATABASE))?.checkpoints()? {
                        writeln!(out, "{jws}")?;
                    }
                    Ok(out.flush()?)
                };
                ended(read())
            }),
        }
    }
}

impl Erase {
    pub fn run(self) -> ExitCode {
        let Self { phone, app, file } = self;
        with_runtime(&file, async |configuration| {
            let (erased, log_emptied) = match operator::erase(&configuration, phone, app).await {
                Ok(done) => done,
                Err(error) => return failed(&error.to_string()),
            };
            for (what, count) in erased {
                say(&format!("{what:<14} {count}\n"));
            }
            if log_emptied {
                return ExitCode::SUCCESS;
            }
            failed("erased, but the database's write-ahead log is being read and could not be emptied: ask once more")
        })
    }
}

impl Backup {
    pub fn run(self) -> ExitCode {
        let Self { to, file } = self;
        with_runtime(&file, async |configuration| match operator::back_up(&configuration, &to).await {
            Ok(made) => {
                for (name, file) in made.files {
                    say(&format!("{name:<14} {} bytes\n", file.bytes));
                }
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error.to_string()),
        })
    }
}

impl Restore {
    pub fn run(self) -> ExitCode {
        let Self { from, audit, replace, file } = self;
        with_runtime(&file, async |configuration| {
            match operator::put_back(&configuration, &from, &audit, replace).await {
                Ok(PutBack { made, aside, erasures, erased }) => {
                    say(&format!("put back the backup of {}\n", made.at));
                    if let Some(aside) = aside {
                        say(&format!("the state before it is in {}\n", aside.display()));
                    }
                    let verifications = erased.get("verifications").copied().unwrap_or_default();
                    say(&format!("{erasures} erasures looked at, {verifications} verifications erased again\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error.to_string()),
            }
        })
    }
}

/// Another key signs: the command `key rotate`.
pub fn rotate(file: &ConfigFile) -> ExitCode {
    with_configuration(file, |configuration| match operator::rotate(&configuration) {
        Ok(kid) => {
            say(&format!("{kid} signs from now on; a node that runs takes it up at its next reload (SIGHUP)\n"));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.to_string()),
    })
}

fn with_runtime(file: &ConfigFile, work: impl AsyncFnOnce(Configuration) -> ExitCode) -> ExitCode {
    with_configuration(file, |configuration| {
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime.block_on(work(configuration)),
            Err(error) => failed(&format!("the system gives no event loop: {error}")),
        }
    })
}

fn with_keys(keys: Option<&Path>, file: &ConfigFile, work: impl FnOnce(&PublicKeys) -> ExitCode) -> ExitCode {
    match keys {
        Some(path) => {
            let mut text = String::new();
            let read = open(path).and_then(|from| from.take(MAX_RECEIPT).read_to_string(&mut text));
            match read
                .map_err(|error| error.to_string())
                .and_then(|_| PublicKeys::parse(&text).map_err(|error| error.to_string()))
            {
                Ok(keys) => work(&keys),
                Err(error) => misused(&format!("{}: {error}", path.display())),
            }
        }
        None => with_configuration(file, |configuration| match read_signing_keys(&configuration.data_dir) {
            Ok(keys) => work(keys.public()),
            Err(error) => misused(&error.to_string()),
        }),
    }
}

/// What was signed, the oldest first, and what is wrong with the rest.
fn signed(
    keys: &PublicKeys,
    stored: Vec<(u64, String)>,
    against: &[PathBuf],
) -> Result<(Vec<Chain>, Vec<Fault>), String> {
    let (mut signed, mut faults) = (Vec::new(), Vec::new());
    for (seq, jws) in stored {
        match checkpoint::verify(keys, &jws) {
            Ok(chain) if chain.seq == seq => signed.push(chain),
            Ok(chain) => {
                faults.push(Fault::Checkpoint(seq, format!("was moved: it is the one of entry {}", chain.seq)));
            }
            Err(error) => faults.push(Fault::Checkpoint(seq, error.to_string())),
        }
    }
    for path in against {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let chain = checkpoint::verify(keys, line.trim());
            signed.push(chain.map_err(|error| format!("{}, line {number}: this checkpoint {error}", path.display()))?);
        }
    }
    signed.sort_by_key(|chain| chain.seq);
    signed.dedup();
    Ok((signed, faults))
}

fn check_database(database: &Path, keys: &PublicKeys, against: &[PathBuf]) -> Result<Findings, String> {
    let read = |error: StoreError| error.to_string();
    let log = AuditLog::open(database).map_err(read)?;
    let (signed, faults) = signed(keys, log.checkpoints().map_err(read)?, against)?;
    let mut checker = Checker::new(&signed);
    for fault in faults {
        checker.tell(fault);
    }
    log.entries(None, |AuditRow { seq, text, hash, agrees }| -> Result<(), StoreError> {
        checker.entry(seq, &text, &hash, agrees);
        Ok(())
    })
    .map_err(read)?;
    Ok(checker.finish())
}

fn check_export(log: &Path, keys: &PublicKeys, against: &[PathBuf]) -> Result<Findings, String> {
    let (signed, _) = signed(keys, Vec::new(), against)?;
    let mut checker = Checker::new(&signed);
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", log.display());
    let mut place = 0;
    for line in BufReader::new(open(log).map_err(unreadable)?).lines() {
        let line = line.map_err(unreadable)?;
        let (text, hash) = export::read_json_line(&line)
            .ok_or_else(|| format!("{} holds a line that is no entry of an audit log", log.display()))?;
        // An export has no places but those that its entries name, in the order of its lines.
        let named = ringproof::audit::chain::Entry::parse(&text).map_or(place + 1, |entry| entry.seq);
        place = if named > place { named } else { place + 1 };
        checker.entry(place, &text, &hash, true);
    }
    Ok(checker.finish())
}

fn tell(findings: &Findings) -> ExitCode {
    let Findings { faults, more, entries, checkpoints, last } = findings;
    for fault in faults {
        say(&format!("{fault}\n"));
    }
    if *more > 0 {
        say(&format!("and {more} faults more\n"));
    }
    let (seq, hash) = (last.seq, hex::encode(last.hash));
    say(&format!("{entries} entries, {checkpoints} checkpoints fit; the last entry is {seq} with hash {hash}\n"));
    if *entries == 0 && *checkpoints == 0 && faults.is_empty() {
        return failed("the log is empty, which it is not where a node has ever started");
    }
    if faults.is_empty() {
        say("the log is whole\n");
        ExitCode::SUCCESS
    } else {
        failed("the log is not as it was written")
    }
}

/// Why an export ended early.
enum ExportError {
    Store(StoreError),
    Write(io::Error),
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn ended(written: Result<(), ExportError>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(ExportError::Store(error)) => misused(&error.to_string()),
        // Nobody reads any more.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(ExportError::Write(error)) => failed(&format!("the export cannot be written: {error}")),
    }
}

fn write_export(database: &Path, format: ExportFormat, kind: Option<Kind>, zone: &TimeZone) -> Result<(), ExportError> {
    let log = AuditLog::open(database)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if matches!(format, ExportFormat::Csv) {
        out.write_all(export::CSV_HEADER.as_bytes())?;
    }
    log.entries(kind, |AuditRow { text, hash, .. }| -> Result<(), ExportError> {
        let line = match format {
            ExportFormat::Jsonl => Some(export::json_line(&text, &hash, zone)),
            ExportFormat::Csv => export::csv_line(&text, &hash, zone),
        };
        Ok(out.write_all(line.unwrap_or_default().as_bytes())?)
    })?;
    Ok(out.flush()?)
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| format!("is none of {}", Kind::ALL.map(Kind::as_str).join(", ")))
}

fn parse_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|error| error.to_string())
}
