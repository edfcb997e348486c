//! Advice to the processor, which changes nothing but the time that things take.
#![allow(unsafe_code, reason = "it has no safe interface")]

/// Bytes that the processor fetches together.
pub const LINE: usize = 64;

/// Has the processor fetch the line at `place` without waiting for it.
#[inline]
pub fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; the processor ignores addresses that are not mapped.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
