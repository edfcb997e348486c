//! The loop of one UDP socket: a batch of responses in; ACKs, INVITEs again and new INVITEs out together.

use super::course::{Course, Shared};
use super::script::Script;
use super::timer::Timer;
use super::{FloodError, Part};
use crate::load::losses::Losses;
use crate::transport::udp::{BATCH, BoundSocket, Inbox, Outgoing, UdpSocket};

/// Messages that go out together at most: as many as wait for one flush.
const ROOM: usize = 2 * BATCH;

/// Places the calls of `course` from `socket` until they are over.
pub(super) async fn run(socket: BoundSocket, shared: &Shared, course: Course) -> Result<Part, FloodError> {
    let socket = socket.register()?;
    let script = Script::new(&shared.settings.plot, socket.local_addr(), shared.settings.via);
    let lane = Lane { socket, script, course, outgoing: Outgoing::new(), losses: Losses::default() };
    // Its buffers are large, and need not be moved about with what waits for it.
    Box::pin(lane.run(shared)).await
}

struct Lane<'a> {
    socket: UdpSocket,
    script: Script<'a>,
    course: Course,
    outgoing: Outgoing,
    losses: Losses,
}

impl Lane<'_> {
    async fn run(mut self, shared: &Shared) -> Result<Part, FloodError> {
        let (peer, local) = (shared.settings.via.address, self.socket.local_addr().ip());
        let mut inbox = Inbox::new();
        let mut timer = Timer::new()?;
        loop {
            inbox.receive(&self.socket)?;
            let now = self.course.now();
            self.losses.socket_drops += u64::from(inbox.kernel_drops());
            let (calls, script) = (&mut self.course.calls, &self.script);
            for datagram in inbox.iter() {
                if datagram.remote.ip() != peer.ip() || datagram.remote.port() != peer.port() {
                    continue;
                }
                if self.outgoing.is_full() {
                    self.losses.unsent += self.outgoing.flush(&self.socket).await.dropped as u64;
                }
                // There is room. What is too long cannot be: a To has its limit.
                let _ = self.outgoing.push(peer, local, |out| calls.receive(script, datagram.bytes, now, out));
            }
            // While answers queue up, no more calls begin than have ended.
            let full = inbox.is_full();
            let room = if full { ROOM.min(self.outgoing.len() * 2 + 1) } else { ROOM };
            let mut more = true;
            while more && self.outgoing.len() < room {
                let _ = self.outgoing.push(peer, local, |out| more = calls.next(script, now, out));
            }
            let flushed = self.outgoing.flush(&self.socket).await;
            self.losses.unsent += flushed.dropped as u64;
            if self.course.is_over(now) {
                break;
            }
            if full {
                // The socket counts as readable until a batch is not full.
                continue;
            }
            if more {
                // Lets the runtime hear of datagrams, which it does only between the turns of its tasks.
                tokio::task::yield_now().await;
                continue;
            }
            timer.arm(now, self.course.wake(now))?;
            tokio::select! {
                biased;
                readable = self.socket.readable() => readable?,
                expired = timer.expired() => expired?,
            }
        }
        self.losses.socket_drops += u64::from(self.socket.new_drops());
        Ok(Part { losses: self.losses, ..self.course.finish() })
    }
}
