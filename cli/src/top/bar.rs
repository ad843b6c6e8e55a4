//! The filter bar: the options of `portcullis events`, with or without their dashes.

use clap::Parser;
use portcullis_agent::control::{EventClass, EventFormat, Wanted};

use crate::args;
use crate::events;

/// Longest text that can be typed.
pub(super) const MAX_CHARS: usize = 256;

#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
struct Typed {
    #[command(flatten)]
    events: args::Events,
}

/// What a text wants; nothing special if it is empty.
///
/// # Errors
/// What is wrong with it, as a line.
pub(super) fn wanted(text: &str) -> Result<Option<Wanted>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    // `verdict=block` is easier to type than `--verdict block`, and as clear.
    let words = text.split_whitespace().map(|word| {
        let is_pair = !word.starts_with('-') && word.contains('=');
        if is_pair { format!("--{word}") } else { word.to_owned() }
    });
    // Alerts alone are the default of `events`, and here both are.
    let words = ["--class=all".to_owned()].into_iter().chain(words);
    let line = |error: clap::Error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    let events = Typed::try_parse_from(words).map_err(line)?.events;
    if events.count.is_some() || events.timeout.is_some() || events.output != args::EventOutput::Json {
        return Err("here is no end and no format: only class, container, namespace, pod, image, verdict and rule".to_owned());
    }
    let class = EventClass::from(events.class);
    Ok(Some(Wanted { class, filter: events::filter(&events), count: None, format: EventFormat::Json }))
}

#[cfg(test)]
mod tests {
    use portcullis_agent::alerts::{Filter, Verdict};

    use super::*;

    #[test]
    fn the_options_of_events_are_understood_with_and_without_dashes() {
        let filter = Filter { container: Some("web".to_owned()), verdict: Some(Verdict::Block), ..Filter::default() };
        let expected = Wanted { class: EventClass::All, filter, ..Wanted::default() };
        for text in ["container=web verdict=block", "--container web --verdict=block", " verdict=block  container=web "] {
            assert_eq!(wanted(text).unwrap(), Some(expected.clone()), "{text}");
        }
        assert_eq!(wanted("class=process").unwrap().unwrap().class, EventClass::Process);
        assert_eq!(wanted("rule=no-shadow:12").unwrap().unwrap().filter.rule.as_deref(), Some("no-shadow:12"));
        assert_eq!(wanted("  ").unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_said_in_a_line() {
        for (text, says) in
            [("verdict=maybe", "invalid value 'maybe'"), ("web", "unexpected argument 'web'"), ("pods=1", "--pods")]
        {
            let error = wanted(text).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
        assert!(wanted("output=ocsf").unwrap_err().contains("no format") && wanted("-n 3").unwrap_err().contains("no end"));
    }
}
