//! Messages that the load's own machine has lost, so that nobody blames the peer for them.

use std::io::{self, Write};
use std::ops::AddAssign;

/// How many, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Datagrams that this machine's own sockets lost: answers that came and were not seen.
    pub socket_drops: u64,
    /// Messages that the system did not take.
    pub unsent: u64,
}

impl Losses {
    /// Tells of them on standard error, where there are any. `or` is what helps beside a larger receive buffer, such as
    /// `, or use more --threads`.
    pub fn tell(self, or: &str) {
        // That nobody reads any more is no reason to fail.
        let _ = io::stderr().write_all(self.text(or).as_bytes());
    }

    fn text(self, or: &str) -> String {
        let Self { socket_drops, unsent } = self;
        let dropped = (socket_drops > 0).then(|| {
            format!(
                "{socket_drops} answers came and were lost by this machine, for want of buffer: \
                 raise net.core.rmem_max{or}\n"
            )
        });
        let untaken = (unsent > 0).then(|| format!("{unsent} messages were not sent: the system did not take them\n"));
        dropped.into_iter().chain(untaken).collect()
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.socket_drops += other.socket_drops;
        self.unsent += other.unsent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_lost_is_told() {
        assert_eq!(Losses::default().text(", or x"), "");
        let mut losses = Losses { socket_drops: 2, unsent: 0 };
        let drops = "2 answers came and were lost by this machine, for want of buffer: raise net.core.rmem_max, or x\n";
        assert_eq!(losses.text(", or x"), drops);
        losses += Losses { socket_drops: 0, unsent: 3 };
        let unsent = "3 messages were not sent: the system did not take them\n";
        assert_eq!(losses.text(", or x"), format!("{drops}{unsent}"));
    }
}
