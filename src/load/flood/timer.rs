//! A timer that is finer than a millisecond, which is as fine as the runtime's own are.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes its task at a moment, given as the time since any start that its user keeps to.
#[derive(Debug)]
pub struct Timer {
    descriptor: AsyncFd<OwnedFd>,
    armed: Option<Duration>,
}

impl Timer {
    /// A timer that is not armed, watched by the runtime of the calling thread.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    #[allow(unsafe_code, reason = "the runtime has no safe way to watch a descriptor")]
    pub fn new() -> io::Result<Self> {
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` is open, closes only when dropped, and always gives the same descriptor.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { descriptor, armed: None })
    }

    /// Has [`Timer::expired`] return at `at` or before. A timer that is armed for a moment between is left as it is,
    /// which spares a system call: whoever wakes looks at the time anyway.
    ///
    /// # Errors
    /// The system's; none is known.
    pub fn arm(&mut self, now: Duration, at: Duration) -> io::Result<()> {
        if self.armed.is_some_and(|armed| now < armed && armed <= at) {
            return Ok(());
        }
        // No time at all would disarm it.
        let pause = at.saturating_sub(now).max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(at);
        Ok(())
    }

    /// Waits for the moment. May be dropped and called again at any time.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn expired(&mut self) -> io::Result<()> {
        // The count of expirations is not read: arming the timer anew clears it, and the runtime is told of arrivals.
        self.descriptor.readable().await?.clear_ready();
        self.armed = None;
        Ok(())
    }
}
