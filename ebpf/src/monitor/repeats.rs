//! Accesses that were counted and not told.

use std::time::Duration;

use super::{Monitor, abi, load};
use crate::{Error, boottime_ns};

/// An access that was told once and then only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// What makes it the same: process, operation, arguments, result, object.
    pub what: abi::Repeat,
    /// The event that told it: its [`abi::Access::cpu`] and [`abi::Access::seq`].
    pub told: (u32, u64),
    /// When that was, `CLOCK_BOOTTIME`, ns.
    pub told_ns: u64,
    /// How often it was repeated since.
    pub repeats: u64,
}

impl Monitor {
    /// For how long repeats of an access are counted and not told.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn window(&self) -> Result<Duration, Error> {
        Ok(Duration::from_nanos(load::read_config(&self.config)?.window_ns))
    }

    /// Sets for how long repeats of an access are counted and not told, one second if never set; zero: each is told.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn set_window(&self, window: Duration) -> Result<(), Error> {
        let _lock = self.place.lock()?;
        let nanoseconds = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX.cast_unsigned());
        load::change_config(&self.config, |config| config.window_ns = nanoseconds)
    }

    /// Takes what was counted of accesses whose window is over. An access that goes on tells its repeats itself when it is told
    /// again; this is for those that have ended. An entry is forgotten only for want of room ([`abi::REPEATS_MAX`]); one that
    /// is taken in the very instant of a repeat may lack it. The sum of all is [`super::Counts::accesses_aggregated`] all the same.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn take_repeats(&self) -> Result<Vec<Repeat>, Error> {
        let failed = |error| Error::system("reading pc_mon_repeats", error);
        let window = load::read_config(&self.config)?.window_ns;
        let mut keys = Vec::new();
        // Others change the map meanwhile: the walk may begin again, and must end all the same.
        while keys.len() < abi::REPEATS_MAX as usize {
            match self.repeats.next_key(keys.last().map(Vec::as_slice)).map_err(failed)? {
                Some(key) => keys.push(key),
                None => break,
            }
        }
        let now = boottime_ns();
        let over = |value: &abi::Repeated| value.repeats > 0 && now.saturating_sub(value.since_ns) >= window;
        let mut taken = Vec::new();
        for key in keys {
            let value = self.repeats.lookup(&key).map_err(failed)?;
            if !value.is_some_and(|value| over(&bytemuck::pod_read_unaligned(&value))) {
                continue;
            }
            if let Some(value) = self.repeats.take(&key).map_err(failed)? {
                let value: abi::Repeated = bytemuck::pod_read_unaligned(&value);
                taken.push(Repeat {
                    what: bytemuck::pod_read_unaligned(&key),
                    told: (value.cpu, value.seq),
                    told_ns: value.since_ns,
                    repeats: value.repeats,
                });
            }
        }
        Ok(taken)
    }
}
