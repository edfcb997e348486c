//! Finding one of a few bytes in a short text, sixteen at a time.
//!
//! Header fields are a few dozen bytes long and looked through piece by piece, so what a call to a search for long texts
//! costs before it begins is more than the search.

/// Bytes that are compared at once.
const LANE: usize = 16;

/// Index of the first of `wanted` in `text` from `from` on, or the length of `text`.
#[inline]
pub fn any<const N: usize>(text: &[u8], from: usize, wanted: [u8; N]) -> usize {
    let mut index = from;
    while let Some(lane) = text.get(index..).and_then(<[u8]>::first_chunk) {
        let found = hits(*lane, wanted);
        if found != 0 {
            return index + found.trailing_zeros() as usize;
        }
        index += LANE;
    }
    if let Some(lane) = text.last_chunk::<LANE>()
        && index < text.len()
    {
        // What is left, behind bytes that were looked at or are not to be.
        let known = LANE - (text.len() - index);
        let found = hits(*lane, wanted) >> known;
        return if found == 0 { text.len() } else { index + found.trailing_zeros() as usize };
    }
    while index < text.len() && !wanted.contains(&text[index]) {
        index += 1;
    }
    index.min(text.len())
}

/// Index of the first `wanted` in `text`.
#[must_use]
#[inline]
pub fn first(text: &[u8], wanted: u8) -> Option<usize> {
    let index = any(text, 0, [wanted]);
    (index < text.len()).then_some(index)
}

/// Bit n is set where byte n is one of `wanted`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the processor's own instructions")]
fn hits<const N: usize>(lane: [u8; LANE], wanted: [u8; N]) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128,
    };
    // SAFETY: every x86-64 processor has SSE2, and any sixteen bytes are a `__m128i`.
    unsafe {
        let lane = std::mem::transmute::<[u8; LANE], __m128i>(lane);
        let mut found = _mm_setzero_si128();
        for byte in wanted {
            found = _mm_or_si128(found, _mm_cmpeq_epi8(lane, _mm_set1_epi8(byte.cast_signed())));
        }
        _mm_movemask_epi8(found).cast_unsigned()
    }
}

/// Bit n is set where byte n is one of `wanted`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn hits<const N: usize>(lane: [u8; LANE], wanted: [u8; N]) -> u32 {
    lane.iter().enumerate().fold(0, |found, (index, byte)| found | u32::from(wanted.contains(byte)) << index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_byte_finds(text in prop::collection::vec(0u8..6, 0..70), from in 0usize..80) {
            let plain = |wanted: &[u8]| {
                (from..text.len()).find(|&index| wanted.contains(&text[index])).unwrap_or(text.len())
            };
            prop_assert_eq!(any(&text, from, [1]), plain(&[1]));
            prop_assert_eq!(any(&text, from, [2, 3]), plain(&[2, 3]));
            prop_assert_eq!(any(&text, from, [0, 4, 200]), plain(&[0, 4, 200]));
            prop_assert_eq!(first(&text, 5), text.iter().position(|&byte| byte == 5));
        }
    }
}
