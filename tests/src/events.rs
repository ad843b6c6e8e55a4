//! What `portcullis events` tells, followed while tests run.

use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::guest::Guest;
use crate::process::{Dialogue, Talk};

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
    /// `file`, `process`, `network`, `capability` …
    pub class: String,
    /// What was tried.
    pub operation: String,
    /// A path, `FAMILY,TYPE,PROTOCOL`, or a capability.
    pub object: String,
    /// The policy that decided.
    pub policy: String,
    /// The container's id.
    pub container: String,
    /// The name of the task.
    pub comm: String,
    /// The JSON line.
    pub line: String,
}

impl Events {
    /// Begins to follow. Without Portcullis nothing is followed.
    pub(crate) fn follow(guest: &Guest) -> Result<Self> {
        if guest.without {
            return Ok(Self::of_nobody());
        }
        let mut events = Self { follower: Some(Dialogue::start(guest.command().arg("events"))?) };
        // What is still in the ring belongs to earlier tests.
        events.drain()?;
        Ok(events)
    }

    /// Follows nothing.
    pub(crate) fn of_nobody() -> Self {
        Self { follower: None }
    }

    /// Begins anew where what was followed has gone.
    pub(crate) fn again(&mut self, guest: &Guest) -> Result<()> {
        if self.follower.as_mut().is_some_and(|follower| !follower.running()) {
            *self = Self::follow(guest)?;
        }
        Ok(())
    }

    /// Every alert up to now: reads until none has come for a while.
    pub(crate) fn drain(&mut self) -> Result<Vec<Alert>> {
        let mut alerts = Vec::new();
        let Some(follower) = &mut self.follower else { return Ok(alerts) };
        loop {
            match follower.line(QUIET) {
                Ok(line) => alerts.extend(Alert::parse(line)),
                Err(crate::Failure::Timeout { .. }) => return Ok(alerts),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Alert {
    fn parse(line: String) -> Option<Self> {
        let json: Value = serde_json::from_str(&line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            class: text(&json["class"]),
            operation: text(&json["operation"]),
            object: text(&json["object"]),
            policy: text(&json["policy"]),
            container: text(&json["container"]["id"]),
            comm: text(&json["process"]["comm"]),
            line,
        })
    }
}
