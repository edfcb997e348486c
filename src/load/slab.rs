//! What is in flight, each at a place that the branch of its INVITE names.
//!
//! A response is matched by the digits behind the cookie of its branch: no map, no allocation. The generation tells
//! what is at a place from what was there before, for answers may come late or twice.

/// Most that are in flight.
pub(crate) const ROOM: usize = 1 << 16;
/// Digits of a key in text.
pub(crate) const KEY: usize = 12;

/// Where something is kept, and which of those that were there: four and eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) place: u16,
    pub(crate) generation: u32,
}

impl Key {
    /// Writes the digits.
    ///
    /// # Panics
    /// When there are not [`KEY`] bytes.
    pub(crate) fn write(self, digits: &mut [u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut rest = u64::from(self.place) << 32 | u64::from(self.generation);
        for digit in digits[..KEY].iter_mut().rev() {
            *digit = DIGITS[usize::from((rest & 15) as u8)];
            rest >>= 4;
        }
    }

    /// Reads the digits that `text` begins with.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let mut value = 0u64;
        for digit in text.get(..KEY)? {
            let digit = char::from(*digit).to_digit(16)?;
            value = value << 4 | u64::from(digit);
        }
        let place = u16::try_from(value >> 32).ok()?;
        let generation = u32::try_from(value & u64::from(u32::MAX)).ok()?;
        Some(Self { place, generation })
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// What is in flight, at most [`ROOM`].
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
    first_generation: u32,
}

impl<T> Slab<T> {
    /// Nothing. The first at each place has this generation: other runs begin elsewhere, and answers to their calls
    /// match none of ours.
    pub(crate) const fn new(first_generation: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), first_generation }
    }

    /// How many are in flight.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a value; `None` when there is no room.
    pub(crate) fn insert(&mut self, value: T) -> Option<Key> {
        let place = if let Some(place) = self.free.pop() {
            place
        } else {
            let place = u16::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot { generation: self.first_generation, value: None });
            place
        };
        let slot = &mut self.slots[usize::from(place)];
        slot.value = Some(value);
        Some(Key { place, generation: slot.generation })
    }

    /// The value of this key, while it is in flight.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(usize::from(key.place))?;
        slot.value.as_mut().filter(|_| slot.generation == key.generation)
    }

    /// Takes the value of this key out.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(usize::from(key.place)).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.place);
        Some(value)
    }

    /// Takes all out, and gives how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.len();
        for (place, slot) in (0..=u16::MAX).zip(&mut self.slots) {
            if slot.value.take().is_some() {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(place);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_and_write_back() {
        for key in [key(0, 0), key(1, 0xdead_beef), key(u16::MAX, u32::MAX)] {
            let mut digits = [0; KEY];
            key.write(&mut digits);
            assert_eq!(Key::read(&digits), Some(key));
        }
        assert_eq!(Key::read(b"00010000000fxyz"), Some(key(1, 15)));
        for text in [&b"00010000000"[..], b"0001000000 0", b"g00100000000", b""] {
            assert_eq!(Key::read(text), None);
        }
    }

    #[test]
    fn a_key_finds_its_own_value_and_no_later_one_at_its_place() {
        let mut slab = Slab::new(u32::MAX);
        let first = slab.insert(1).unwrap();
        let second = slab.insert(2).unwrap();
        assert_eq!(slab.get_mut(second), Some(&mut 2));
        assert_eq!(slab.remove(first), Some(1));
        assert_eq!((slab.remove(first), slab.len()), (None, 1));
        let third = slab.insert(3).unwrap();
        assert_eq!((third.place, third.generation), (first.place, 0), "the place is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.get_mut(third), Some(&mut 3));
        assert_eq!(slab.remove(key(9, 0)), None, "a place that never was");
    }

    #[test]
    fn a_full_slab_takes_no_more_and_is_empty_once_cleared() {
        let mut slab = Slab::new(0);
        let keys: Vec<Key> = (0..).map_while(|number: u64| slab.insert(number)).collect();
        assert_eq!((keys.len(), slab.len()), (ROOM, ROOM));
        assert!(slab.remove(keys[77]).is_some());
        assert_eq!((slab.clear(), slab.is_empty()), (ROOM - 1, true));
        assert_eq!(slab.remove(keys[0]), None);
        assert_eq!((0..).map_while(|number| slab.insert(number)).count(), ROOM);
    }

    fn key(place: u16, generation: u32) -> Key {
        Key { place, generation }
    }
}
