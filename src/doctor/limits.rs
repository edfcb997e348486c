//! File descriptors and memory against what the configuration can need.

use super::Finding;
use crate::telemetry::machine::{self, Memory};

pub(super) fn check(descriptors: u64, memory: u64) -> Vec<Finding> {
    let (soft, hard) = machine::descriptor_limits();
    vec![judge_descriptors(soft, hard, descriptors), judge_memory(machine::memory(), memory)]
}

fn judge_descriptors(soft: u64, hard: u64, needed: u64) -> Finding {
    const CHECK: &str = "descriptors";
    let shown = |limit: u64| if limit == u64::MAX { "no limit".to_owned() } else { limit.to_string() };
    let found = format!("soft {}, hard {}, needed up to {needed}", shown(soft), shown(hard));
    if hard >= needed {
        // The node raises the soft limit itself.
        return Finding::ok(CHECK, "", found);
    }
    Finding::warn(CHECK, "", found)
        .advise(format!("fewer connections are taken at once: LimitNOFILE={} in the unit", needed.next_power_of_two()))
}

fn judge_memory(memory: Option<Memory>, needed: u64) -> Finding {
    const CHECK: &str = "memory";
    let Some(memory) = memory else {
        return Finding::warn(CHECK, "", "not known: /proc/meminfo cannot be read");
    };
    let owner = if memory.by_control_group { "by control group" } else { "of the machine" };
    let found = format!("{} {owner}, needed up to {}", size(memory.bytes), size(needed));
    if memory.bytes >= needed {
        return Finding::ok(CHECK, "", found);
    }
    Finding::warn(CHECK, "", found).advise("lower store.max_pending or sip.recent_calls, or give it more memory")
}

/// Bytes in the unit that shows them best.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x2_8000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn the_hard_limit_of_descriptors_counts() {
        assert_eq!(judge_descriptors(1024, 8192, 4500).level, Level::Ok);
        assert!(judge_descriptors(1024, u64::MAX, 4500).found.contains("hard no limit"));
        let few = judge_descriptors(1024, 4096, 4500);
        assert_eq!(few.level, Level::Warn);
        assert!(few.advice.unwrap().contains("LimitNOFILE=8192"));
    }

    #[test]
    fn memory_below_the_estimate_is_a_warning() {
        let memory = |bytes| Some(Memory { bytes, by_control_group: true });
        assert_eq!(judge_memory(memory(4 << 30), 3 << 30).level, Level::Ok);
        let little = judge_memory(memory(512 << 20), 2 << 30);
        assert_eq!(little.level, Level::Warn);
        assert_eq!(little.found, "512 MiB by control group, needed up to 2048 MiB");
        assert_eq!(judge_memory(None, 1).level, Level::Warn);
        assert_eq!(size(20 << 30), "20 GiB");
    }
}
