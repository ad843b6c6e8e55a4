//! Memory that the process has no use for any longer, and the allocator keeps.

/// Heaps. glibc would make eight for each processor, and what one thread freed in its own serves no other: after a runtime's account
/// of 1,000 containers 15 MiB stayed in place of 9.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 1;

/// Has all threads share one heap, of small pages; for a process's beginning, before there are threads.
pub(crate) fn keep_small() {
    // What is free between things that are not is less than 2 MiB: a heap of huge pages gives little of it back.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!("the kernel gives this process huge pages, more memory is used: {error}");
    }
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's own call")]
        // SAFETY: takes two numbers and no pointer, and locks what it changes (mallopt(3)).
        let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
        if is_set == 0 {
            tracing::warn!("the C library gives each thread a heap of its own: more memory is used");
        }
    }
}

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
