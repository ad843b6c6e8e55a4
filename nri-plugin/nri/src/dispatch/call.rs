//! Calling one handler: in a task of its own, within its time, and without letting a panic out.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::failure::{Code, Failure};

tokio::task_local! {
    /// Set while a handler runs: what would deadlock there is refused.
    pub(crate) static IN_HANDLER: ();
}

/// How much earlier than the runtime's time-out a request is answered for a handler that is still at work.
const MARGIN_DIVISOR: u32 = 10;
/// The least and the most of it. The least covers a scheduler that is late under load.
const MARGIN: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(500);

/// Whether handlers are cut off before the runtime does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Answer with a failure in time.
    InTime,
    /// Answer when the handler has finished, be it too late.
    Late,
}

impl Pace {
    /// When a request that just came has to be answered.
    pub(crate) fn deadline(self, timeout: Option<Duration>) -> Option<Instant> {
        let timeout = timeout?;
        let margin = match self {
            Pace::InTime => (timeout / MARGIN_DIVISOR).clamp(*MARGIN.start(), *MARGIN.end()),
            Pace::Late => Duration::ZERO,
        };
        Instant::now().checked_add(timeout.saturating_sub(margin))
    }
}

/// The request's time as the wire has it; 0 and less mean none.
pub(super) fn timeout(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|time| *time > 0).map(Duration::from_nanos)
}

/// Runs a handler to its end, or to the deadline.
pub(super) async fn run<T: Send + 'static>(
    method: &'static str,
    deadline: Option<Instant>,
    handler: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut task = AbortOnDrop(tokio::spawn(IN_HANDLER.scope((), handler)));
    let joined = match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline, &mut task.0).await {
            Ok(joined) => joined,
            Err(_) => {
                let text = format!(
                    "the plugin could not handle {method} in time; raise the runtime's plugin_request_timeout if this happens under load"
                );
                return Err(Failure::new(Code::DeadlineExceeded, text));
            }
        },
        None => (&mut task.0).await,
    };
    joined.unwrap_or_else(|error| Err(ended(method, error)))
}

fn ended(method: &str, error: JoinError) -> Failure {
    let text = match error.try_into_panic() {
        Ok(panic) => format!("the plugin's handler of {method} panicked: {}", panic_text(panic.as_ref())),
        Err(_) => format!("the plugin is shutting down and did not finish {method}"),
    };
    Failure::new(Code::Internal, text)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match panic.downcast_ref::<String>() {
        Some(text) => text,
        None => panic.downcast_ref::<&str>().copied().unwrap_or("no message"),
    }
}

/// Ends the handler with the request that it is for: when the connection is lost, or the time is up.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_before_the_runtime_gives_up() {
        let now = Instant::now();
        let at = |pace: Pace, milliseconds| pace.deadline(Some(Duration::from_millis(milliseconds))).unwrap() - now;
        assert_eq!(at(Pace::InTime, 2000), Duration::from_millis(1800));
        assert_eq!(at(Pace::InTime, 10), Duration::from_millis(5));
        assert_eq!(at(Pace::InTime, 1), Duration::ZERO);
        assert_eq!(at(Pace::InTime, 60_000), Duration::from_millis(59_500));
        assert_eq!(at(Pace::Late, 2000), Duration::from_millis(2000));
        assert_eq!(Pace::InTime.deadline(None), None);
    }

    #[test]
    fn no_time_and_nonsense_are_no_limit() {
        assert_eq!(timeout(0), None);
        assert_eq!(timeout(-5), None);
        assert_eq!(timeout(7), Some(Duration::from_nanos(7)));
    }
}
