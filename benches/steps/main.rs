//! The steps of a call, each by itself: time by the benchmark harness, or work for a counter of instructions.
//!
//! `cargo bench --bench steps` tells the time of each. `steps --repeat NAME COUNT` runs one step so often and ends:
//! `benches/instructions` runs that under callgrind with two counts, and the difference is the step's own.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use criterion::Criterion;

mod refusal;
mod state;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes a step ready to be run as often as one likes.
type Prepare = fn() -> Box<dyn FnMut()>;

/// Every step's name and what prepares it.
const STEPS: [(&str, Prepare); 8] = [
    ("scan", refusal::scan),
    ("identity", refusal::identity),
    ("refuse", refusal::refuse),
    ("match_miss", state::match_miss),
    ("match_hit", state::match_hit),
    ("claim", state::claim),
    ("render", state::render),
    ("sign", state::signature),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, count] = arguments.as_slice()
        && flag == "--repeat"
    {
        let (_, prepare) = STEPS.iter().find(|(step, _)| step == name).expect("a step of this name");
        let mut run = prepare();
        for _ in 0..count.parse::<u64>().expect("a number of runs") {
            run();
        }
        return;
    }
    if arguments == ["--list-steps"] {
        for (name, _) in STEPS {
            println!("{name}");
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, prepare) in STEPS {
        let mut run = prepare();
        criterion.bench_function(name, |timer| timer.iter(&mut run));
    }
    criterion.final_summary();
}
