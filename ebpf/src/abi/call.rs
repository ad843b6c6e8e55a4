//! The table of system calls: the index of a call that is asked for in one of several ways, and the words behind it. The same call has
//! the same word behind each of its indexes.

/// Index of number 0 of a 64-bit program.
pub const X86_64: u32 = 0;
/// Index of number 0 of `int 0x80`.
pub const I386: u32 = 512;
/// Index of number 512 of x32; it shares those before with 64-bit programs.
pub const X32: u32 = 1024;
/// Index of the first argument 0 of i386's `socketcall`.
pub const SOCKETCALL: u32 = 1088;
/// The same of i386's `ipc`.
pub const IPC: u32 = 1152;
/// Words of the table.
pub const END: u32 = 1216;
/// Numbers of an ABI.
pub const NUMBERS: u32 = 512;
/// Arguments, and numbers of x32 alone.
pub const ARGUMENTS: u32 = 64;

/// Told where files are opened.
pub const AT_OPEN: u32 = 0x1;
/// Told where files are executed.
pub const AT_EXEC: u32 = 0x2;
/// Told where names come and go.
pub const AT_NAME: u32 = 0x4;
/// Told where attributes are changed.
pub const AT_ATTRIBUTE: u32 = 0x8;
/// Told where file systems are mounted.
pub const AT_MOUNT: u32 = 0x10;

/// Operation group in decisions on paths of calls.
pub const CALLED: u32 = 0;

/// A word: column of the call's rules and class of its path rules, from 1, or 0 for none; and where its paths are told.
#[must_use]
pub const fn word(column: u32, paths: u32, at: u32) -> u32 {
    column | paths << 10 | at << 20
}

/// Column of the call's rules in a word.
#[must_use]
pub const fn column(word: u32) -> u32 {
    word & 0x3ff
}

/// Class of the call's path rules in a word.
#[must_use]
pub const fn paths(word: u32) -> u32 {
    word >> 10 & 0x3ff
}

/// A call of a process is told once in so many nanoseconds; more of the same are counted.
pub const WINDOW_NS: u32 = 1_000_000_000;
/// Such calls that are remembered as told.
pub const REPEATS_MAX: u32 = 4096;
