//! The scale of state: what millions of pending verifications cost in memory, at a start, in a look-up and when their
//! windows end together.
//!
//! `cargo bench --bench state` prints a table, with `-- --json` one object. The inputs are the same in each run, and
//! the clocks of the application stand still: what is pending stays pending however long a part takes. Each part runs
//! in a process of its own, so that its memory holds nothing of the one before. The databases are in
//! `--data-dir`, one at a time, some gigabytes at the default counts; each is removed when it is done with.

#![allow(clippy::cast_precision_loss, reason = "what is counted stays far below 2^53")]

use std::fs;
use std::path::PathBuf;

use clap::Parser;

use part::Part;
use report::Report;

mod calls;
mod expiry;
mod fill;
mod index;
mod memory;
mod node;
mod part;
mod report;
mod restore;
mod rows;
mod timing;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the others are compared with.
const SMALL: u64 = 1_000;

/// One more size for the time of a restore.
const MIDDLE: u64 = 1_000_000;

/// Each count of `--quick`.
const QUICK: u64 = 100_000;

/// Measures the scale of state.
#[derive(Debug, Parser)]
struct Arguments {
    /// Verifications that are pending at once.
    #[arg(long, value_name = "COUNT", default_value_t = 5_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(SMALL..=rows::MOST))]
    pending: u64,
    /// Verifications whose windows end in the same second.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(SMALL..=rows::MOST))]
    expiring: u64,
    /// Take 100,000 for both counts.
    #[arg(long, conflicts_with_all = ["pending", "expiring"])]
    quick: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Where the databases are: a folder on a real disk.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/state-bench"))]
    data_dir: PathBuf,
    /// Do one part alone, in this process: with `--pending` verifications, over the database in `--data-dir`.
    #[arg(long, value_name = "PART", hide = true)]
    part: Option<Part>,
    /// What cargo adds.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(part) = arguments.part {
        println!("{}", part.run(&arguments.data_dir, arguments.pending));
        return;
    }
    let (pending, expiring) = if arguments.quick { (QUICK, QUICK) } else { (arguments.pending, arguments.expiring) };
    fs::create_dir_all(&arguments.data_dir).expect("the data folder can be made");
    let report = measure(&arguments, pending, expiring);
    // It stays where it holds something else.
    let _ = fs::remove_dir(&arguments.data_dir);
    if arguments.json {
        println!("{}", serde_json::to_string(&report).expect("figures become JSON"));
    } else {
        print!("{report}");
    }
}

/// All parts, one after the other.
fn measure(arguments: &Arguments, pending: u64, expiring: u64) -> Report {
    let folder = || tempfile::tempdir_in(&arguments.data_dir).expect("a folder in the data folder");
    let mut sizes = vec![SMALL, MIDDLE.min(pending), pending];
    sizes.dedup();
    let (mut fills, mut restores) = (Vec::new(), Vec::new());
    for size in sizes {
        let folder = folder();
        fills.push(Part::Fill.in_its_own_process(folder.path(), size));
        restores.push(Part::Restore.in_its_own_process(folder.path(), size));
    }
    let folder = folder();
    let index = [SMALL, pending].map(|size| Part::Index.in_its_own_process(folder.path(), size));
    let marking = Part::ExpireIndex.in_its_own_process(folder.path(), expiring);
    fills.push(Part::FillTogether.in_its_own_process(folder.path(), expiring));
    let expiry = Part::ExpireStored.in_its_own_process(folder.path(), expiring);
    Report::new(fills, restores, index, marking, expiry)
}
