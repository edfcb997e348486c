//! How the table lies in memory: advice to the kernel and the processor, which changes nothing but the time it takes.
#![allow(unsafe_code, reason = "neither advice has a safe interface")]

/// Asks the kernel to back the room of `sets` with large pages: every call looks at random places of it, and of small
/// pages the processor remembers too few.
pub(super) fn advise_large_pages<T>(sets: &Vec<T>) {
    let (start, length) = (sets.as_ptr() as usize, sets.capacity() * size_of::<T>());
    let page = start.next_multiple_of(4_096);
    let length = length.saturating_sub(page - start);
    // SAFETY: the range lies within the vector's own memory, and the advice leaves what is in it as it is.
    // A kernel that knows no large pages refuses, and all goes on with small ones.
    let _ = unsafe { libc::madvise(page as *mut libc::c_void, length, libc::MADV_HUGEPAGE) };
}

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
