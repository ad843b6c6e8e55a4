//! What `portcullis events` tells, followed while tests run.

use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::guest::Guest;
use crate::process::Dialogue;

/// Events of one moment come within this, under emulation too.
const QUIET: Duration = Duration::from_millis(700);

/// A follower.
#[derive(Debug)]
pub(crate) struct Events {
    follower: Option<Dialogue>,
}

/// One alert, as far as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Alert {
    /// The JSON line.
    pub json: Value,
}

impl Events {
    /// Begins to follow. Without Portcullis nothing is followed.
    pub(crate) fn follow(guest: &Guest) -> Result<Self> {
        if guest.without {
            return Ok(Self { follower: None });
        }
        let mut events = Self { follower: Some(Dialogue::start(guest.command().arg("events"))?) };
        // What is still in the ring belongs to earlier tests.
        events.drain()?;
        Ok(events)
    }

    /// Every alert up to now: reads until none has come for a while.
    pub(crate) fn drain(&mut self) -> Result<Vec<Alert>> {
        let mut alerts = Vec::new();
        let Some(follower) = &mut self.follower else { return Ok(alerts) };
        loop {
            match follower.line(QUIET) {
                Ok(line) => alerts.extend(serde_json::from_str(&line).ok().map(|json| Alert { json })),
                Err(crate::Failure::Timeout { .. }) => return Ok(alerts),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Alert {
    /// The first of these fields that is there, as text.
    pub(crate) fn text(&self, names: &[&str]) -> String {
        names
            .iter()
            .map(|name| name.split('.').fold(&self.json, |value, part| &value[part]))
            .find(|value| !value.is_null())
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .unwrap_or_default()
    }
}
