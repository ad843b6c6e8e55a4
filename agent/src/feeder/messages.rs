//! What the agent says of itself, for those who watch it from afar: the lines of its log.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::alerts::fanout::{Fanout, Item};
use crate::kubearmor::{Host, Message};

/// The lines, as a layer of the log.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    pub(super) fanout: Fanout<Line>,
}

/// A line of the log.
#[derive(Debug)]
pub(super) struct Line {
    at: SystemTime,
    level: Level,
    text: String,
}

impl Item for Line {
    const MAX_QUEUED_BYTES: usize = 256 << 10;

    fn bytes(&self) -> usize {
        128 + self.text.len()
    }
}

impl Line {
    pub(super) fn encoded(&self, host: &Host) -> Bytes {
        let seconds = self.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let message = Message {
            timestamp: i64::try_from(seconds).unwrap_or(i64::MAX),
            updated_time: humantime::format_rfc3339_micros(self.at).to_string(),
            cluster_name: host.cluster.clone(),
            host_name: host.name.clone(),
            host_ip: String::new(),
            r#type: "Message".to_owned(),
            level: self.level.to_string(),
            message: self.text.clone(),
        };
        message.encode_to_vec().into()
    }
}

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { mut message, fields } = text;
        message.push_str(&fields);
        self.fanout.publish(Line { at: SystemTime::now(), level: *event.metadata().level(), text: message });
    }
}

/// The message of an event, and its other fields as the log writes them.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.extend([" ", name, &format!("={value:?}")]),
        }
    }
}
