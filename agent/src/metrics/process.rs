//! This process, in the names that every exporter has for it.

use std::io;
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};

/// What the process takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessSample {
    /// Of processor time, user and system, since its start.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
}

impl ProcessSample {
    /// From `/proc/self`.
    pub(super) fn take() -> io::Result<ProcessSample> {
        let own = Path::new("/proc/self");
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/self/{what} is not understood"));
        let stat = std::fs::read_to_string(own.join("stat"))?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| malformed("stat"))?;
        let statm = std::fs::read_to_string(own.join("statm"))?;
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).ok_or_else(|| malformed("statm"))?;
        Ok(ProcessSample {
            cpu_seconds: ticks as f64 / clock_ticks_per_second() as f64,
            resident_bytes: pages * page_size() as u64,
            // Without the one that reads the directory.
            open_fds: (std::fs::read_dir(own.join("fd"))?.count() as u64).saturating_sub(1),
        })
    }
}

/// `utime` and `stime` of proc_pid_stat(5). The name before them may have spaces and parentheses of its own.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_moves_no_field() {
        assert_eq!(cpu_ticks("7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14"), Some(11 + 12));
        assert_eq!(cpu_ticks("7 (a) R 1 2 3"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn this_test_takes_something() {
        let sample = ProcessSample::take().unwrap();
        assert!(sample.resident_bytes > 100_000 && sample.open_fds >= 3 && sample.cpu_seconds >= 0.0, "{sample:?}");
    }
}
