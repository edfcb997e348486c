//! What the kernel says of this process's memory (proc(5), `/proc/pid/status`).

use std::fs;

/// Bytes of memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// In RAM now: `VmRSS`.
    pub resident: u64,
    /// The most that ever was: `VmHWM`.
    pub peak: u64,
}

/// As it is now. Nothing is given back to the kernel on purpose before: what the allocator keeps counts.
pub fn read() -> Memory {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells of this process");
    Memory { resident: bytes(&status, "VmRSS:"), peak: bytes(&status, "VmHWM:") }
}

fn bytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells this field");
    let kibibytes = line.split_whitespace().next().expect("the field has a value");
    kibibytes.parse::<u64>().expect("the value is a number") * 1_024
}
