//! Advice to the processor, which changes nothing but the time that things take.
#![allow(unsafe_code, reason = "it has no safe interface")]

/// Has the processor fetch `place`, two cache lines, without waiting for it.
pub(super) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(place).cast::<i8>();
        // SAFETY: a hint; the processor ignores addresses that are not mapped.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line);
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
