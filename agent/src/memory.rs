//! Memory that the process has no use for any longer, and the allocator keeps.

/// Gives what is free back to the system. glibc does so by itself only at the end of its heap: a runtime's account of a full
/// node, tens of megabytes for a moment, would stay for as long as something small that was allocated after it.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library's own call")]
    // SAFETY: takes a number and no pointer, and locks what it works on (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
