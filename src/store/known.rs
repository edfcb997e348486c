//! The phones that were given a number: of any other there is nothing to read before it is given one.
//!
//! A Bloom filter that grows. It never says of a phone that it knows that it does not; of one in a hundred others, up
//! to one in twenty when it is full, it says that it might. Phones whose rows are purged stay in it until the next
//! start.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use rusqlite::{Connection, params};

use super::row;
use crate::e164::E164;

/// Phones for which the first part has room; each further part has room for twice as many as the one before.
const FIRST: u32 = 1 << 20;

/// Parts, for 66 million phones in 88 MB. Beyond them more and more phones might be known, which costs a read each.
const PARTS: usize = 6;

/// Phones to a block, which is a cache line: about ten bits each.
const TO_A_BLOCK: u32 = 48;

/// Bits of a phone in its block.
const BITS: u32 = 5;

/// Phones that are read at a time, from the index that has them in this order.
const CHUNK: u32 = 10_000;
const NEXT: &str = "SELECT DISTINCT application, phone FROM verifications WHERE (application, phone) > (?1, ?2) \
                    ORDER BY application, phone LIMIT ?3";

/// What is known.
#[derive(Debug)]
pub struct KnownPhones {
    parts: RwLock<Vec<Part>>,
    hasher: RandomState,
    /// All rows that the start found are in.
    whole: AtomicBool,
    closing: AtomicBool,
}

#[derive(Debug)]
struct Part {
    blocks: Vec<Block>,
    /// Phones for which there is room.
    left: AtomicU32,
    room: u32,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; 8]);

impl Default for KnownPhones {
    fn default() -> Self {
        Self {
            parts: RwLock::new(vec![Part::new(FIRST)]),
            hasher: RandomState::new(),
            whole: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }
}

impl KnownPhones {
    /// Notes that a phone is given a number.
    pub fn note(&self, application: &str, phone: E164) {
        let hash = self.hash(application, phone);
        let room = {
            let parts = self.parts.read();
            if parts.iter().any(|part| part.has(hash)) {
                return;
            }
            let Some(last) = parts.last() else { return };
            last.add(hash);
            let is_full =
                last.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) == Ok(1);
            (is_full && parts.len() < PARTS).then(|| last.room * 2)
        };
        // Only whoever took the last place comes here; the others go on meanwhile.
        if let Some(room) = room {
            let part = Part::new(room);
            self.parts.write().push(part);
        }
    }

    /// Whether a phone may have been given a number.
    pub fn may_know(&self, application: &str, phone: E164) -> bool {
        if !self.whole.load(Ordering::Acquire) {
            return true;
        }
        let hash = self.hash(application, phone);
        self.parts.read().iter().any(|part| part.has(hash))
    }

    /// Notes all that the database holds, unless the store closes meanwhile. In chunks, for the write-ahead log cannot
    /// begin anew while one of them is read.
    pub fn load(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(NEXT)?;
        let mut last = (String::new(), 0_i64);
        while !self.closing.load(Ordering::Relaxed) {
            let mut rows = statement.query(params![last.0, last.1, CHUNK])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let application = row.get_ref(0)?.as_str()?;
                self.note(application, row::number(row, 1)?);
                count += 1;
                if count == CHUNK {
                    last = (application.to_owned(), row.get::<_, i64>(1)?);
                }
            }
            if count < CHUNK {
                self.whole.store(true, Ordering::Release);
                break;
            }
        }
        Ok(())
    }

    /// Has a load end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn hash(&self, application: &str, phone: E164) -> u64 {
        self.hasher.hash_one((application, phone))
    }
}

impl Part {
    fn new(room: u32) -> Self {
        let mut blocks = Vec::new();
        blocks.resize_with((room / TO_A_BLOCK + 1) as usize, Block::default);
        Self { blocks, left: AtomicU32::new(room), room }
    }

    fn add(&self, hash: u64) {
        for (word, bit) in bits(hash) {
            self.block(hash).0[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn has(&self, hash: u64) -> bool {
        let block = self.block(hash);
        bits(hash).all(|(word, bit)| block.0[word].load(Ordering::Relaxed) & bit != 0)
    }

    fn block(&self, hash: u64) -> &Block {
        // The bits come from the low half of the hash, the block from all of it.
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let place = ((spread * self.blocks.len() as u64) >> 32) as usize;
        &self.blocks[place]
    }
}

/// Word and bit in a block.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..BITS).map(move |index| {
        let place = (hash >> (9 * index)) & 0x1ff;
        ((place >> 6) as usize, 1 << (place & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use crate::store::tests::{Folder, plan};

    #[test]
    fn a_chunk_is_a_range_of_the_index() {
        let folder = Folder::new();
        let connection = schema::open_writer(&folder.database()).unwrap();
        let plan = plan(&connection, NEXT);
        assert!(plan.contains("SEARCH verifications USING COVERING INDEX verifications_of_phone"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    fn phone(number: u64) -> E164 {
        format!("+9665{number:08}").parse().unwrap()
    }

    #[test]
    fn what_was_noted_is_known_however_much_it_is_and_few_others_might_be() {
        let known = KnownPhones { parts: RwLock::new(vec![Part::new(1_000)]), ..KnownPhones::default() };
        assert!(known.may_know("demo", phone(1)), "before all rows are in");
        known.whole.store(true, Ordering::Release);
        let count = 30_000;
        (0..count).for_each(|number| known.note("demo", phone(number)));
        assert_eq!(known.parts.read().len(), 5, "1,000, 2,000, 4,000, 8,000 and 16,000");
        assert!((0..count).all(|number| known.may_know("demo", phone(number))));
        let others = (count..2 * count).filter(|number| known.may_know("demo", phone(*number))).count();
        let elsewhere = (0..count).filter(|number| known.may_know("shop", phone(*number))).count();
        // Each of the parts is wrong in less than one of fifty.
        let most = PARTS * 30_000 / 50;
        assert!(others < most && elsewhere < most, "{others} and {elsewhere} of {count}");
    }
}
