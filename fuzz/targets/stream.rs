//! A stream is cut into the same pieces however it arrives, and never into more than it has.
//!
//! The first byte says in what steps the rest comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringproof::sip::framing::{Cut, FrameError, Framer};

/// What a stream is cut into: the length of each message, 0 for a ping, and how it ended.
fn cut(bytes: &[u8], step: usize) -> (Vec<usize>, Option<FrameError>) {
    let (mut framer, mut pieces, mut begin, mut end) = (Framer::default(), Vec::new(), 0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        loop {
            match framer.cut(&bytes[begin..end]) {
                Ok(Cut::Wait) => break,
                Ok(Cut::Blank(length)) => begin += length,
                // Line ends before a ping go with it, or went before as blank: that much depends on the reads.
                Ok(Cut::Ping(length)) => {
                    pieces.push(0);
                    begin += length;
                }
                Ok(Cut::Message(length)) => {
                    assert!(length > 0 && begin + length <= end);
                    pieces.push(length);
                    begin += length;
                }
                Err(error) => return (pieces, Some(error)),
            }
            assert!(begin <= end);
        }
    }
    (pieces, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = cut(bytes, bytes.len().max(1));
    assert_eq!(cut(bytes, usize::from(*step).max(1)), whole);
});
