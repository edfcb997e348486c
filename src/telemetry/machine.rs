//! What the system gives this process: descriptors, memory, disk.
//!
//! Reads only. Linux: `/proc` (proc(5)) and control groups of both versions (cgroups(7)).

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// Descriptors that this process may have open: the limit in force and the one that it may raise it to. `u64::MAX` is
/// no limit.
#[must_use]
pub fn descriptor_limits() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

/// Descriptors that this process has open.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    // One is the directory that is being read.
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some((entries as u64).saturating_sub(1))
}

/// Datagrams that the kernel has lost in this network namespace because a socket's receive buffer was full.
#[must_use]
pub fn udp_receive_buffer_errors() -> Option<u64> {
    let v4 = std::fs::read_to_string("/proc/self/net/snmp").ok()?;
    let v6 = std::fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    Some(of_v4(&v4)? + of_v6(&v6).unwrap_or(0))
}

/// The `Udp` lines: names, then figures in their order.
fn of_v4(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let place = lines.next()?.split(' ').position(|name| name == "RcvbufErrors")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

fn of_v6(snmp6: &str) -> Option<u64> {
    snmp6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"))?.trim().parse().ok()
}

/// How much memory this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// Whether a control group sets it, not the machine's size.
    pub by_control_group: bool,
}

/// The machine's memory, or the smallest limit of the control groups that this process is in.
#[must_use]
pub fn memory() -> Option<Memory> {
    let total = total_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let limit = limits.filter_map(|text| text.trim().parse::<u64>().ok()).min();
    Some(match limit.filter(|limit| *limit < total) {
        Some(bytes) => Memory { bytes, by_control_group: true },
        None => Memory { bytes: total, by_control_group: false },
    })
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Files that may hold a limit, by the lines of `/proc/self/cgroup`: those of the group and of all above it. Inside a
/// container the path may be the host's, so that only the topmost exists.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (base, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|one| one == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let inside = Path::new(path.trim_start_matches('/'));
        files.extend(inside.ancestors().map(|group| Path::new(base).join(group).join(file)));
    }
    files
}

/// Room on a disk for this process's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// The room on the disk that holds `path`.
///
/// # Errors
/// The system's.
pub fn room(path: &Path) -> io::Result<Room> {
    let disk = rustix::fs::statvfs(path)?;
    let files = (disk.f_files > 0).then_some(disk.f_favail);
    Ok(Room { bytes: disk.f_bavail.saturating_mul(disk.f_frsize), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_datagrams_are_read_from_the_kernels_tables() {
        let snmp =
            "Ip: A B\nIp: 1 2\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors X\nUdp: 1 2 3 4 57 6\n";
        assert_eq!(of_v4(snmp), Some(57));
        assert_eq!(of_v6("Udp6InErrors  \t1\nUdp6RcvbufErrors                \t9\n"), Some(9));
        assert_eq!(of_v4(""), None);
        assert!(udp_receive_buffer_errors().is_some());
    }

    #[test]
    fn groups_of_both_versions_are_looked_at_up_to_the_top() {
        let v2 = limit_files("0::/system.slice/ringproof.service\n");
        let shown: Vec<_> = v2.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/system.slice/ringproof.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        let v1 = limit_files("5:cpu,cpuacct:/x\n4:memory:/docker/abc\nbroken\n");
        assert_eq!(v1[0], Path::new("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"));
        assert_eq!(v1.last().unwrap(), Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        assert_eq!(v1.len(), 3);
    }

    #[test]
    fn the_machine_has_memory_room_and_descriptors() {
        assert_eq!(total_memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert!(memory().unwrap().bytes > 1 << 20);
        assert!(room(Path::new("/")).is_ok() && room(Path::new("/no/such/path")).is_err());
        let (soft, hard) = descriptor_limits();
        assert!(soft <= hard && open_descriptors().unwrap() < soft);
    }
}
