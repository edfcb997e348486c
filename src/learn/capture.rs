//! Captures: pcap and pcapng, one packet after the other (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
//!
//! Owns the cap on packets. Reads blocks raw: a packet whose options are odd is still a packet. A capture that ends in
//! the middle of a packet, as one does whose program was stopped, is read up to there.

use std::io::{self, Cursor, ErrorKind, Read};
use std::time::Duration;

use pcap_file::Endianness;
use pcap_file::pcap::{PcapReadError, PcapReader, PcapTsResolution};
use pcap_file::pcapng::{PcapNgReadError, PcapNgReader, PcapNgState, RawBlock};

use super::LearnError;

/// Most packets that are read.
pub(super) const MAX_PACKETS: u64 = 1_000_000;
/// Most blocks of a pcapng file that are read, packets and others.
const MAX_BLOCKS: u64 = 2 * MAX_PACKETS;

/// First bytes of a pcap file: microseconds or nanoseconds, in either byte order.
const PCAP: [[u8; 4]; 4] =
    [[0xa1, 0xb2, 0xc3, 0xd4], [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x4d, 0x3c, 0xb2, 0xa1]];
/// First bytes of a pcapng file: the type of the Section Header Block, the same in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Types of the blocks that hold packets.
const PACKET_BLOCK: u32 = 2;
const SIMPLE_PACKET_BLOCK: u32 = 3;
const ENHANCED_PACKET_BLOCK: u32 = 6;

/// One packet as captured.
pub(super) struct Frame<'a> {
    /// Number of its link layer (`LINKTYPE_` of tcpdump.org).
    pub link: u32,
    /// When it was captured, since 1970; zero where the capture does not tell.
    pub at: Duration,
    /// Its bytes, link layer first.
    pub data: &'a [u8],
    /// Whether these are all of its bytes.
    pub whole: bool,
}

/// How the reading ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum End {
    /// At the end of the capture.
    #[default]
    Whole,
    /// At the end of the bytes, in the middle of a packet.
    CutOff,
    /// At bytes that make no sense.
    Damaged,
    /// At [`MAX_PACKETS`].
    Limit,
}

/// Hands each packet of a capture to `take`.
pub(super) fn each(mut bytes: impl Read, take: impl FnMut(&Frame<'_>)) -> Result<End, LearnError> {
    let mut magic = [0u8; 4];
    bytes.read_exact(&mut magic).map_err(opening)?;
    let whole = Cursor::new(magic).chain(bytes);
    if magic == PCAPNG {
        blocks(whole, take)
    } else if PCAP.contains(&magic) {
        records(whole, take)
    } else {
        Err(LearnError::NotACapture)
    }
}

fn records(bytes: impl Read, mut take: impl FnMut(&Frame<'_>)) -> Result<End, LearnError> {
    let mut reader = PcapReader::new(bytes).map_err(|error| match error {
        PcapReadError::Io(error) => opening(error),
        PcapReadError::Validation(_) => LearnError::NotACapture,
    })?;
    let header = reader.header();
    // The upper half tells of frame check sequences.
    let link = u32::from(header.datalink) & 0xffff;
    let unit = if header.ts_resolution == PcapTsResolution::NanoSecond { 1 } else { 1000 };
    let mut count = 0;
    while let Some(next) = reader.next_raw_packet() {
        if count == MAX_PACKETS {
            return Ok(End::Limit);
        }
        count += 1;
        let record = match next {
            Ok(record) => record,
            Err(PcapReadError::Io(error)) => return ended(error),
            Err(PcapReadError::Validation(_)) => return Ok(End::Damaged),
        };
        take(&Frame {
            link,
            at: Duration::from_secs(record.ts_sec.into()) + Duration::from_nanos(u64::from(record.ts_frac) * unit),
            data: &record.data,
            whole: record.incl_len >= record.orig_len,
        });
    }
    Ok(End::Whole)
}

fn blocks(bytes: impl Read, mut take: impl FnMut(&Frame<'_>)) -> Result<End, LearnError> {
    let mut reader = PcapNgReader::new(bytes).map_err(|error| match error {
        PcapNgReadError::Io(error) => opening(error),
        _ => LearnError::NotACapture,
    })?;
    let mut total = 0;
    let mut packets = 0;
    while let Some(next) = reader.next_raw_block() {
        let (block, state) = match next {
            Ok(read) => read,
            Err(PcapNgReadError::Io(error)) => return ended(error),
            Err(_) => return Ok(End::Damaged),
        };
        total += 1;
        if total > MAX_BLOCKS {
            return Ok(End::Limit);
        }
        if !matches!(block.type_, PACKET_BLOCK | SIMPLE_PACKET_BLOCK | ENHANCED_PACKET_BLOCK) {
            continue;
        }
        if packets == MAX_PACKETS {
            return Ok(End::Limit);
        }
        packets += 1;
        let Some(frame) = frame(&block, state) else { return Ok(End::Damaged) };
        take(&frame);
    }
    Ok(End::Whole)
}

/// The packet of a block. The obsolete Packet Block differs from the Enhanced one in its first four bytes only.
fn frame<'b>(block: &'b RawBlock<'_>, state: &PcapNgState) -> Option<Frame<'b>> {
    let fields = Fields { body: &block.body, big: state.endianness() == Endianness::Big };
    let interface = match block.type_ {
        ENHANCED_PACKET_BLOCK => fields.long(0)?,
        PACKET_BLOCK => fields.short(0)?.into(),
        _ => 0,
    };
    let described = state.interfaces().get(usize::try_from(interface).ok()?)?;
    let link = u32::from(described.linktype) & 0xffff;
    if block.type_ == SIMPLE_PACKET_BLOCK {
        // It has no time, and its captured length is the least of three.
        let length = usize::try_from(fields.long(0)?).ok()?;
        let limit = usize::try_from(described.snaplen).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let data = fields.body.get(4..)?;
        let captured = length.min(limit).min(data.len());
        return Some(Frame { link, at: Duration::ZERO, data: &data[..captured], whole: captured == length });
    }
    let (captured, length) = (fields.long(12)?, fields.long(16)?);
    let end = usize::try_from(captured).ok()?.checked_add(20)?;
    Some(Frame {
        link,
        at: state.decode_timestamp(interface, fields.long(4)?, fields.long(8)?).unwrap_or_default(),
        data: fields.body.get(20..end)?,
        whole: captured >= length,
    })
}

/// Numbers in the body of a block.
struct Fields<'b> {
    body: &'b [u8],
    big: bool,
}

impl Fields<'_> {
    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.body.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.body.get(at..at + 2)?.try_into().ok()?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }
}

/// A file too short for its own header is none.
fn opening(error: io::Error) -> LearnError {
    if error.kind() == ErrorKind::UnexpectedEof { LearnError::NotACapture } else { LearnError::Read(error) }
}

fn ended(error: io::Error) -> Result<End, LearnError> {
    if error.kind() == ErrorKind::UnexpectedEof { Ok(End::CutOff) } else { Err(LearnError::Read(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Link layer, seconds, bytes and wholeness of each packet.
    type Seen = Vec<(u32, u64, Vec<u8>, bool)>;

    fn read(bytes: &[u8]) -> (Result<End, LearnError>, Seen) {
        let mut seen = Seen::new();
        let end = each(bytes, |frame| seen.push((frame.link, frame.at.as_secs(), frame.data.to_vec(), frame.whole)));
        (end, seen)
    }

    #[test]
    fn pcap_is_read_in_either_byte_order_and_up_to_where_it_is_cut_off() {
        for big in [false, true] {
            let bytes = pcap(big, 113, &[(b"abc", 3), (b"de", 9)]);
            let packets = vec![(113, 7, b"abc".to_vec(), true), (113, 7, b"de".to_vec(), false)];
            let (end, seen) = read(&bytes);
            assert_eq!((end.unwrap(), &seen), (End::Whole, &packets));
            let (end, seen) = read(&bytes[..bytes.len() - 1]);
            assert_eq!((end.unwrap(), &seen[..]), (End::CutOff, &packets[..1]));
        }
    }

    #[test]
    fn pcapng_is_read_with_simple_and_enhanced_packets() {
        let mut bytes = block(0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
        bytes.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0]));
        let time = 7_000_000u32.to_le_bytes();
        let enhanced = [&[0; 8][..], &time, &[2, 0, 0, 0], &[9, 0, 0, 0], b"de\0\0"].concat();
        bytes.extend(block(6, &enhanced));
        bytes.extend(block(3, &[&[3, 0, 0, 0][..], b"abc\0"].concat()));
        bytes.extend(block(0x0bad, b"more"));
        let (end, seen) = read(&bytes);
        assert_eq!(end.unwrap(), End::Whole);
        assert_eq!(seen, [(101, 7, b"de".to_vec(), false), (101, 0, b"abc".to_vec(), true)]);
        bytes.extend(block(6, &[0; 8]));
        assert_eq!(read(&bytes).0.unwrap(), End::Damaged);
    }

    #[test]
    fn other_files_are_no_captures() {
        for bytes in [&b""[..], b"abc", b"\x1f\x8b\x08\x00", b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a0123456789abcdef"] {
            assert!(matches!(read(bytes).0, Err(LearnError::NotACapture)), "{}", bytes.escape_ascii());
        }
    }

    fn pcap(big: bool, link: u32, packets: &[(&[u8], u32)]) -> Vec<u8> {
        let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let version: [u8; 4] = if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let mut bytes = [long(0xa1b2_c3d4), version, long(0), long(0), long(4), long(link)].concat();
        for (data, length) in packets {
            let captured = u32::try_from(data.len()).unwrap();
            bytes.extend([long(7), long(1), long(captured), long(*length)].concat());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    }
}
