//! Talking to the service manager: readiness, reloads, the stop, and the watchdog (`sd_notify(3)`).
//!
//! Owns the socket and the environment variables of the protocol. Says what it is told to say; without `NOTIFY_SOCKET`
//! nothing. Invariant: no failure here stops or delays the node by more than a second.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a full socket may hold a message up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It wants to hear from a healthy node at least this often.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        Self::named(
            std::env::var_os("NOTIFY_SOCKET"),
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
            std::env::var("WATCHDOG_PID").ok().as_deref(),
        )
    }

    fn named(socket: Option<OsString>, usec: Option<&str>, pid: Option<&str>) -> Self {
        let Some(name) = socket.filter(|name| !name.is_empty()) else { return Self::default() };
        let socket = match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "the service manager's NOTIFY_SOCKET cannot be used");
                None
            }
        };
        // The variables may be meant for another process that handed its environment on.
        let mine = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = usec.filter(|_| mine).and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// The longest silence of a healthy node, if the service manager watches.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// The node is ready, or is again after a reload.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins. `now` is the time by `CLOCK_MONOTONIC`.
    pub fn reloading(&self, now: Duration) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", now.as_micros()));
    }

    /// The node stops, which may take `time`.
    pub fn stopping(&self, time: Duration) {
        let seconds = time.as_secs();
        let extend = time.as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=draining, {seconds} s at most\nEXTEND_TIMEOUT_USEC={extend}"));
    }

    /// The node is healthy.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_reach_a_socket_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("ringproof-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}").into()),
        ] {
            let supervisor = Supervisor::named(Some(name), Some("30000000"), None);
            assert_eq!(supervisor.watchdog(), Some(Duration::from_secs(30)));
            supervisor.ready("fine");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=fine");
            supervisor.reloading(Duration::from_micros(77));
            assert_eq!(heard(&socket), "RELOADING=1\nMONOTONIC_USEC=77\nSTATUS=reloading");
            supervisor.stopping(Duration::from_secs(2));
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining, 2 s at most\nEXTEND_TIMEOUT_USEC=2000000");
            supervisor.alive();
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
    }

    #[test]
    fn without_a_socket_nothing_is_said_and_nothing_fails() {
        for name in [None, Some(""), Some("vsock:2:1234"), Some("/nowhere/notify")] {
            let supervisor = Supervisor::named(name.map(Into::into), None, None);
            supervisor.ready("fine");
            assert_eq!(supervisor.watchdog(), None);
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let name = || Some(OsString::from("/nowhere/notify"));
        let pid = std::process::id().to_string();
        assert!(Supervisor::named(name(), Some("5"), Some(&pid)).watchdog().is_some());
        assert!(Supervisor::named(name(), Some("5"), Some("1")).watchdog().is_none());
        for broken in ["0", "", "soon"] {
            assert!(Supervisor::named(name(), Some(broken), None).watchdog().is_none());
        }
    }
}
