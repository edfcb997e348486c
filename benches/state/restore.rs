//! A start over a full database: how long it takes, what it leaves in memory, and what calls cost then.

use std::path::Path;

use serde::{Deserialize, Serialize};

use ringproof::engine::clock::instant;
use ringproof::verify::CallOutcome;

use crate::calls::Caller;
use crate::memory;
use crate::node::Node;
use crate::rows::{Pair, Rows};
use crate::timing::{LOOK_UPS, Nanoseconds, absent, present, rounds};

/// What a start brought back, and at what cost.
#[derive(Debug, Serialize, Deserialize)]
pub struct Restored {
    /// Verifications pending since.
    pub pending: u64,
    /// From the open database to the last of them. The kernel may still have the file in its cache.
    pub seconds: f64,
    /// In RAM before: the program, an open store, and the table of recent calls.
    pub resident_before_bytes: u64,
    /// In RAM when it was done.
    pub resident_after_bytes: u64,
    /// The most in RAM until then.
    pub peak_bytes: u64,
    /// What came, by verification: the index with its deadlines and counts, the places of the phones, what the
    /// allocator kept of the restore, and the page cache of one reader, 8 MiB.
    pub bytes_per_pending: f64,
    /// A whole call judged, up to the claim, whose caller is waited for.
    pub call_present: Nanoseconds,
    /// One whose caller is not.
    pub call_absent: Nanoseconds,
}

/// Brings back the `rows` in `folder`.
pub fn restore(folder: &Path, rows: Rows) -> Restored {
    let node = Node::open(folder);
    let before = memory::read();
    let begun = instant();
    let restored = node.verify.recover().expect("the database can be read");
    let seconds = begun.elapsed().as_secs_f64();
    let after = memory::read();
    assert_eq!(restored.pending as u64, rows.total(), "all that was written is pending");

    let mut caller = Caller::default();
    let mut time = |pairs: &[Pair], expected: CallOutcome| {
        let begun = instant();
        let as_expected = pairs.iter().filter(|pair| caller.call(&node.verify, **pair) == expected).count();
        let time = begun.elapsed();
        assert_eq!(as_expected, pairs.len(), "every call ends as {expected:?}");
        time
    };
    let call_present = rounds(LOOK_UPS, |round| time(&present(rows, round), CallOutcome::Overload));
    let call_absent = rounds(LOOK_UPS, |round| time(&absent(round), CallOutcome::Unmatched));
    Restored {
        pending: rows.total(),
        seconds,
        resident_before_bytes: before.resident,
        resident_after_bytes: after.resident,
        peak_bytes: after.peak,
        bytes_per_pending: after.resident.saturating_sub(before.resident) as f64 / rows.total() as f64,
        call_present,
        call_absent,
    }
}
