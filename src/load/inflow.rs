//! What comes over a TCP connection, cut into messages.
//!
//! Invariant: what is kept is less than a longest message and one read.

use std::io;

use tokio::net::TcpStream;

use crate::sip::framing::{Cut, FrameError, Framer};

/// Bytes for which each read has room.
pub(super) const READ: usize = 65_536;

/// What has come of one connection, less what is taken.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    framer: Framer,
    buffer: Vec<u8>,
}

impl Inflow {
    /// Reads once what has arrived, and gives how many bytes that was, 0 where there is nothing yet; `None` once the
    /// connection has ended.
    pub(super) fn read(&mut self, stream: &TcpStream) -> Option<usize> {
        self.buffer.reserve(READ);
        match stream.try_read_buf(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Ok(0) | Err(_) => None,
            Ok(length) => Some(length),
        }
    }

    /// Hands out the messages that are whole.
    ///
    /// # Errors
    /// What comes is no SIP: the connection is of no use any more.
    pub(super) fn cut(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), FrameError> {
        let mut taken = 0;
        loop {
            match self.framer.cut(&self.buffer[taken..])? {
                Cut::Wait => break,
                Cut::Blank(length) | Cut::Ping(length) => taken += length,
                Cut::Message(length) => {
                    take(&self.buffer[taken..taken + length]);
                    taken += length;
                }
            }
        }
        self.buffer.drain(..taken);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    const BYE: &str = "BYE sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nxy";

    #[tokio::test]
    async fn messages_are_whole_however_they_arrive_and_the_end_is_told() {
        let (mut peer, stream) = pair().await;
        let (first, rest) = BYE.split_at(30);
        let mut inflow = Inflow::default();
        assert_eq!(inflow.read(&stream), Some(0), "nothing has come");
        peer.write_all(format!("{BYE}\r\n{first}").as_bytes()).await.unwrap();
        let expected = BYE.len() + 2 + first.len();
        assert_eq!(messages(&mut inflow, &stream, expected).await.unwrap(), [BYE]);
        peer.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(messages(&mut inflow, &stream, rest.len()).await.unwrap(), [BYE]);
        drop(peer);
        timeout(DEADLINE, stream.readable()).await.unwrap().unwrap();
        assert_eq!(inflow.read(&stream), None);
    }

    #[tokio::test]
    async fn what_is_no_sip_is_told() {
        let (mut peer, stream) = pair().await;
        let text = "GET / HTTP/1.1\r\n\r\n";
        peer.write_all(text.as_bytes()).await.unwrap();
        assert!(messages(&mut Inflow::default(), &stream, text.len()).await.is_err());
    }

    /// The messages in the next so many bytes.
    async fn messages(inflow: &mut Inflow, stream: &TcpStream, mut bytes: usize) -> Result<Vec<String>, FrameError> {
        let mut found = Vec::new();
        while bytes > 0 {
            timeout(DEADLINE, stream.readable()).await.unwrap().unwrap();
            bytes -= inflow.read(stream).unwrap();
            inflow.cut(|message| found.push(String::from_utf8_lossy(message).into_owned()))?;
        }
        Ok(found)
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (peer, listener.accept().await.unwrap().0)
    }
}
