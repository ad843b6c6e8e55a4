//! A file of lines.
//!
//! Writing to a disk may take as long as it likes, so it has a thread of its own.

use std::time::Duration;

use portcullis_enforcer::{FileSink, LineFormat};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::rotated::Rotated;
use super::{Account, class, stops};
use crate::Error;
use crate::control::{EventFormat, Fed, Feed, LOST_SCHEMA, Lost};
use crate::json;
use crate::telemetry::Telemetry;

/// Bytes of lines that are written at once; one event more may make it longer.
const BATCH_BYTES: usize = 256 << 10;
/// How soon it is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How much of what waits is still written when the agent stops: more than the queues hold.
const LAST_BATCHES: usize = 64;
/// How long the agent waits for that.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn start(
    config: &FileSink,
    telemetry: &Telemetry,
    account: Account,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<(), Error> {
    let writer = Writer {
        feed: Feed::of(telemetry, class(config.what)),
        format: match config.format {
            LineFormat::Lines => EventFormat::Json,
            LineFormat::KubeArmor => EventFormat::Kubearmor,
            LineFormat::Ocsf => EventFormat::Ocsf,
        },
        file: Rotated::new(&config.path, config.max_bytes, config.keep),
        account: account.clone(),
        batch: Batch::default(),
    };
    let (runtime, until) = (Handle::current(), stopped.clone());
    let (done, mut ended) = oneshot::channel::<()>();
    let work = move || {
        runtime.block_on(writer.run(until));
        drop(done);
    };
    let failed = |source| Error::Thread { name: "file-sink", source };
    std::thread::Builder::new().name("file-sink".to_owned()).spawn(work).map_err(failed)?;
    let mut stopped = stopped.clone();
    tasks.spawn(async move {
        let has_ended = tokio::select! {
            // Where both are so, the one is why the other is.
            biased;
            () = stops(&mut stopped) => false,
            _ = &mut ended => true,
        };
        if has_ended {
            account.fails("its thread has ended; see the agent's log".to_owned());
            stops(&mut stopped).await;
            return Ok(());
        }
        // A disk that hangs must not keep the agent.
        if timeout(STOP_PATIENCE, ended).await.is_err() {
            account.fails(format!("the last events are not written after {} s", STOP_PATIENCE.as_secs()));
        }
        Ok(())
    });
    Ok(())
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    events: u64,
}

struct Writer {
    feed: Feed,
    format: EventFormat,
    file: Rotated,
    account: Account,
    /// What was taken from the queues, and is not written yet.
    batch: Batch,
}

impl Writer {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            if self.batch.lines.is_empty() {
                tokio::select! {
                    fed = self.feed.next() => self.take(&fed),
                    () = stops(&mut stopped) => break,
                }
            }
            self.fill();
            if !self.write() {
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = stops(&mut stopped) => break,
                }
            }
        }
        self.finish();
    }

    /// Writes what waits, if it can be written.
    fn finish(mut self) {
        self.feed.end();
        for _ in 0..LAST_BATCHES {
            self.fill();
            if self.batch.lines.is_empty() || !self.write() {
                break;
            }
        }
        self.account.ends_without(self.batch.events);
    }

    fn fill(&mut self) {
        while self.batch.lines.len() < BATCH_BYTES
            && let Some(fed) = self.feed.try_next()
        {
            self.take(&fed);
        }
    }

    fn take(&mut self, fed: &Fed) {
        let lines = &mut self.batch.lines;
        match fed {
            Fed::Alert(alert) => alert.write(lines, self.format),
            Fed::Log(log) => log.write(lines, self.format),
            Fed::Lost(class, lost) => {
                json::write(lines, &Lost { schema: LOST_SCHEMA.to_owned(), class: *class, lost: *lost });
                self.account.lost(*lost);
            }
        }
        lines.push(b'\n');
        self.batch.events += u64::from(!matches!(fed, Fed::Lost(..)));
    }

    /// Whether that worked. What did not stays, to be tried again.
    fn write(&mut self) -> bool {
        match self.file.append(&self.batch.lines) {
            Ok(()) => {
                self.account.wrote(self.batch.events);
                self.batch.lines.clear();
                self.batch.events = 0;
                true
            }
            Err(error) => {
                self.account.fails(error.to_string());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use portcullis_enforcer::{SinkEvents, Sinks};
    use serde_json::Value;

    use super::*;
    use crate::control::SinkStatus;
    use crate::fake::{alert, executed};
    use crate::kubearmor::Host;
    use crate::sinks;

    struct Place {
        _temporary: tempfile::TempDir,
        path: PathBuf,
        telemetry: Telemetry,
        accounts: Vec<Account>,
        stop: watch::Sender<bool>,
        tasks: JoinSet<Result<(), Error>>,
    }

    /// A sink to a file below a directory that may not be there.
    fn place(file: &str, format: LineFormat, what: SinkEvents) -> Place {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join(file);
        let (telemetry, mut tasks) = (Telemetry::default(), JoinSet::new());
        let (stop, stopped) = watch::channel(false);
        let config = Sinks { file: Some(FileSink { path: path.clone(), format, what, max_bytes: 1 << 20, keep: 1 }), otlp: None };
        let accounts = sinks::start(&config, &Host::default(), &telemetry, &stopped, &mut tasks).unwrap();
        Place { _temporary: temporary, path, telemetry, accounts, stop, tasks }
    }

    impl Place {
        async fn until(&self, what: &str, is_so: impl Fn(&SinkStatus) -> bool) {
            let since = Instant::now();
            while !is_so(&self.accounts[0].status()) {
                assert!(since.elapsed() < Duration::from_secs(20), "never: {what}: {:?}", self.accounts[0].status());
                sleep(Duration::from_millis(5)).await;
            }
        }

        async fn end(&mut self) {
            self.stop.send_replace(true);
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap().unwrap();
            }
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn events_are_written_as_they_are_told_and_what_waits_when_it_ends_too() {
        let mut place = place("e.json", LineFormat::Lines, SinkEvents::All);
        place.telemetry.alerts.publish(alert(1, b"/etc/shadow", "aaaa"));
        place.until("the first", |status| status.written == 1).await;
        place.telemetry.logs.publish(executed(None));
        place.telemetry.alerts.publish(alert(2, b"/etc/shadow", "aaaa"));
        place.end().await;
        let lines = lines(&place.path);
        let mut schemas: Vec<&str> = lines.iter().map(|line| line["schema"].as_str().unwrap()).collect();
        schemas.sort_unstable();
        assert_eq!(schemas, ["portcullis.alert/1", "portcullis.alert/1", "portcullis.process/1"]);
        assert_eq!(
            place.accounts[0].status(),
            SinkStatus { sink: "file".to_owned(), to: place.path.display().to_string(), written: 3, lost: 0, trouble: None }
        );
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_written_as_it_is_wanted() {
        let mut place = place("e.json", LineFormat::Ocsf, SinkEvents::Logs);
        place.telemetry.alerts.publish(alert(1, b"/etc/shadow", "aaaa"));
        place.telemetry.logs.publish(executed(None));
        place.until("the log", |status| status.written == 1).await;
        place.end().await;
        let lines = lines(&place.path);
        assert_eq!((lines.len(), &lines[0]["class_uid"]), (1, &serde_json::json!(1007)));
        assert_eq!(place.telemetry.alerts.counters().waiting, 1, "for whoever wants it");
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_delays_nobody_and_what_was_missed_is_told_in_the_file() {
        use crate::alerts::fanout::Item;
        let mut place = place("later/e.json", LineFormat::KubeArmor, SinkEvents::Alerts);
        place.telemetry.alerts.publish(alert(0, b"/etc/shadow", "aaaa"));
        place.until("trouble", |status| status.trouble.is_some()).await;
        let mut other = place.telemetry.alerts.subscribe();
        let fit = u64::try_from(crate::alerts::Alert::MAX_QUEUED_BYTES / alert(1, b"/etc/shadow", "aaaa").bytes()).unwrap();
        for number in 1..=fit + 10 {
            place.telemetry.alerts.publish(alert(number, b"/etc/shadow", "aaaa"));
            assert!(other.try_next().is_some(), "who keeps up misses nothing");
        }
        std::fs::create_dir(place.path.parent().unwrap()).unwrap();
        place.until("all of them", |status| status.written + status.lost == fit + 11 && status.trouble.is_none()).await;
        place.end().await;
        let lines: Vec<Value> = [&place.path.with_extension("json.1"), &place.path]
            .into_iter()
            .filter(|path| path.exists())
            .flat_map(|path| lines(path))
            .collect();
        let lost: u64 =
            lines.iter().filter(|line| line["schema"] == LOST_SCHEMA).map(|line| line["lost"].as_u64().unwrap()).sum();
        let status = place.accounts[0].status();
        assert!(lost > 0 && lost == status.lost, "{lost}: {status:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_at_the_end_is_counted() {
        let mut place = place("never/e.json", LineFormat::Lines, SinkEvents::Alerts);
        place.telemetry.alerts.publish(alert(1, b"/etc/shadow", "aaaa"));
        place.until("trouble", |status| status.trouble.is_some()).await;
        place.end().await;
        assert_eq!((place.accounts[0].status().written, place.accounts[0].status().lost), (0, 1));
    }
}
