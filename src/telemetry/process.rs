//! What the system knows of this process, read from `/proc` when somebody asks (proc(5)).

use parking_lot::Mutex;
use prometheus::{Counter, Gauge};

use super::machine;
use super::metrics::{Book, float_counter, float_gauge};

/// Metrics under the names of Prometheus' own client libraries. What cannot be read keeps its last value.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    open_descriptors: Gauge,
    most_descriptors: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
    /// Under a lock: two readers at once must not add the same time twice.
    cpu: Mutex<Counter>,
}

impl ProcessMetrics {
    pub(super) fn new(book: &Book) -> Self {
        Self {
            open_descriptors: float_gauge(book, "process_open_fds", "Open file descriptors"),
            most_descriptors: float_gauge(book, "process_max_fds", "File descriptors that may be open at once"),
            resident_memory: float_gauge(book, "process_resident_memory_bytes", "Memory of the process that is in RAM"),
            start_time: float_gauge(book, "process_start_time_seconds", "Start of the process, seconds since 1970"),
            cpu: Mutex::new(float_counter(book, "process_cpu_seconds_total", "Time that CPUs worked for the process")),
        }
    }

    pub(super) fn refresh(&self) {
        if let Some(open) = machine::open_descriptors() {
            self.open_descriptors.set(as_float(open));
        }
        let (soft, _) = machine::descriptor_limits();
        self.most_descriptors.set(as_float(soft));
        if let Some(bytes) = read("/proc/self/statm").and_then(|text| resident(&text, page_size())) {
            self.resident_memory.set(as_float(bytes));
        }
        let stat = read("/proc/self/stat");
        let Some(times) = stat.as_deref().and_then(|text| Times::parse(text, ticks_per_second())) else { return };
        if let Some(boot) = read("/proc/stat").and_then(|text| boot_time(&text)) {
            self.start_time.set(boot + times.start);
        }
        let cpu = self.cpu.lock();
        cpu.inc_by((times.cpu - cpu.get()).max(0.0));
    }
}

/// Times of the process in seconds.
#[derive(Debug, PartialEq)]
struct Times {
    /// Worked for it, in user mode and in the kernel.
    cpu: f64,
    /// Its start, since boot.
    start: f64,
}

impl Times {
    fn parse(stat: &str, ticks_per_second: f64) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / ticks_per_second);
        Some(Self { cpu: ticks(14)? + ticks(15)?, start: ticks(22)? })
    }
}

fn resident(statm: &str, page_size: u64) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page_size)
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

fn ticks_per_second() -> f64 {
    as_float(rustix::param::clock_ticks_per_second())
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[expect(clippy::cast_precision_loss, reason = "the text format knows floats only")]
const fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat =
            "71 (a) b (c) S 1 71 71 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        assert_eq!(Times::parse(stat, 100.0), Some(Times { cpu: 3.0, start: 123.45 }));
        assert_eq!(Times::parse("71 (a", 100.0), None);
        assert_eq!(Times::parse("71 (a) S 1", 100.0), None);
    }

    #[test]
    fn memory_and_boot_time_are_read() {
        assert_eq!(resident("5000 321 100 1 0 50 0\n", 4096), Some(321 * 4096));
        assert_eq!(resident("", 4096), None);
        assert_eq!(boot_time("cpu  1 2 3\nbtime 1764000000\nprocesses 7\n"), Some(1_764_000_000.0));
    }
}
