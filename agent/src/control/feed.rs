//! What one reader of events reads: a stream for each class, merged by time.
//!
//! The classes have queues of their own, so that none displaces another. What is taken from them is given out as it was raised: the
//! execution of a program before what it was denied, though they come by different rings. For that, executions and accesses are held until the
//! thread that reads the rings says that nothing older is to come, or for [`HELD`]. Alerts are not held, and go ahead of what is older than
//! they are when they have waited for [`AHEAD`].

use std::sync::Arc;
use std::time::Duration;

use portcullis_ebpf::boottime_ns;

use super::EventClass;
use crate::alerts::Alert;
use crate::alerts::fanout::{Item, Next, Span, Subscription};
use crate::logs::Log;
use crate::telemetry::{Complete, Telemetry};

/// How long after it was raised an event is held at most, because an older one may come.
const HELD: Duration = Duration::from_millis(100);
/// How long an alert waits at most for its reader to take what is older. Where more is told than is read, nothing is old enough.
const AHEAD: Duration = Duration::from_millis(20);

/// What a reader reads.
pub(crate) struct Feed {
    alerts: Option<Subscription<Alert>>,
    logs: Option<Subscription<Log>>,
    accesses: Option<Subscription<Log>>,
    complete: Complete,
    /// When the reader came. What is older has waited for anybody, and no alert among it is in a hurry.
    since_ns: u64,
    is_last: bool,
}

/// What comes of it.
pub(crate) enum Fed {
    Alert(Arc<Alert>),
    Log(Arc<Log>),
    Lost(EventClass, u64),
}

/// What a reader does next.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Alert,
    Log,
    Access,
    /// Something is there, and held for so long at most.
    Wait(Duration),
    Nothing,
}

impl Feed {
    pub(crate) fn of(telemetry: &Telemetry, class: EventClass) -> Feed {
        let alerts = class.has_alerts().then(|| telemetry.alerts.subscribe());
        let logs = class.has_processes().then(|| telemetry.logs.subscribe());
        let accesses = class.has_accesses().then(|| telemetry.accesses.subscribe());
        let (complete, since_ns) = (telemetry.complete.clone(), boottime_ns());
        Feed { alerts, logs, accesses, complete, since_ns, is_last: false }
    }

    /// What comes next. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&mut self) -> Fed {
        loop {
            let turn = self.turn(boottime_ns);
            if let Some(fed) = self.take(&turn) {
                return fed;
            }
            let hold = if let Turn::Wait(hold) = turn { Some(hold) } else { None };
            tokio::select! {
                () = stirred(self.alerts.as_ref()) => {}
                () = stirred(self.logs.as_ref()) => {}
                () = stirred(self.accesses.as_ref()) => {}
                () = tokio::time::sleep(hold.unwrap_or_default()), if hold.is_some() => {}
            }
        }
    }

    /// What is there to be given out.
    pub(crate) fn try_next(&mut self) -> Option<Fed> {
        let turn = self.turn(boottime_ns);
        self.take(&turn)
    }

    /// The reader is about to go: what is there is not held for what may come.
    pub(crate) fn end(&mut self) {
        self.is_last = true;
    }

    fn take(&mut self, turn: &Turn) -> Option<Fed> {
        fn next<T: Item>(stream: Option<&mut Subscription<T>>) -> Option<Next<T>> {
            stream.and_then(Subscription::try_next)
        }
        match turn {
            Turn::Alert => next(self.alerts.as_mut()).map(Fed::alert),
            Turn::Log => next(self.logs.as_mut()).map(|next| Fed::log(EventClass::Process, next)),
            Turn::Access => next(self.accesses.as_mut()).map(|next| Fed::log(EventClass::Access, next)),
            Turn::Wait(_) | Turn::Nothing => None,
        }
    }

    /// Whose turn it is, by the boot clock, which is only looked at where it matters.
    fn turn(&mut self, now_ns: impl Fn() -> u64) -> Turn {
        // Nothing is to be merged where there is one stream.
        match (&self.alerts, &self.logs, &self.accesses) {
            (Some(_), None, None) => return Turn::Alert,
            (None, Some(_), None) => return Turn::Log,
            (None, None, Some(_)) => return Turn::Access,
            _ => {}
        }
        // In this order: what is complete was queued before that was said.
        let complete_ns = self.complete.until_ns();
        let alert = self.alerts.as_mut().and_then(Subscription::peek);
        let log = self.logs.as_mut().and_then(Subscription::peek);
        let access = self.accesses.as_mut().and_then(Subscription::peek);
        let other = match (log, access) {
            (Some(log), Some(access)) if access.next_ns < log.next_ns => Some((Turn::Access, access)),
            (Some(log), _) => Some((Turn::Log, log)),
            (None, access) => access.map(|access| (Turn::Access, access)),
        };
        let Some((turn, other)) = other else { return if alert.is_some() { Turn::Alert } else { Turn::Nothing } };
        match alert {
            // What is older than an alert that has come has come.
            Some(alert) if alert.next_ns <= other.next_ns || self.is_overdue(alert, &now_ns) => Turn::Alert,
            Some(_) => turn,
            None if other.next_ns <= complete_ns || self.is_last => turn,
            None => match hold(other, now_ns()) {
                Some(hold) => Turn::Wait(hold),
                None => turn,
            },
        }
    }

    /// Whether an alert that has been taken has waited for too long.
    fn is_overdue(&self, alerts: Span, now_ns: impl Fn() -> u64) -> bool {
        alerts.newest_ns >= self.since_ns && now_ns().saturating_sub(alerts.newest_ns) > nanos(AHEAD)
    }
}

/// How much longer an event is held. One that seems to be of the future is not.
fn hold(span: Span, now_ns: u64) -> Option<Duration> {
    let left = nanos(HELD).checked_sub(now_ns.abs_diff(span.next_ns))?;
    (left > 0).then(|| Duration::from_nanos(left))
}

const fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

impl Fed {
    fn alert(next: Next<Alert>) -> Fed {
        match next {
            Next::Item(alert) => Fed::Alert(alert),
            Next::Lost(lost) => Fed::Lost(EventClass::Alert, lost),
        }
    }

    fn log(class: EventClass, next: Next<Log>) -> Fed {
        match next {
            Next::Item(log) => Fed::Log(log),
            Next::Lost(lost) => Fed::Lost(class, lost),
        }
    }
}

async fn stirred<T: Item>(stream: Option<&Subscription<T>>) {
    match stream {
        Some(stream) => stream.stirred().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
