//! `portcullis top`: what containers run and what is denied to them, as it happens.
//!
//! Shows what others tell: the agent's status, trees and events, the kernel's counters, and the records of the state directory.
//! [`sources`] has the threads that wait for them, [`model`] what is kept of it, [`view`] what keys do, [`draw`] a frame.

mod bar;
mod draw;
mod model;
mod sampler;
mod sources;
#[cfg(test)]
mod tests;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_agent::control::{Client, EventClass, Wanted};
use portcullis_enforcer::{Config, Enforcer};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, KeyEventKind};
use ratatui::crossterm::terminal;
use ratatui::{DefaultTerminal, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGTERM};

use self::model::Model;
use self::sources::{Sources, Stream, Update};
use self::view::{View, Wish};
use crate::Answer;
use crate::failure::Failure;
use crate::output;

/// How long a key is waited for before a new frame is drawn.
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// Most updates that are taken in between two frames, so that keys are looked at.
const MAX_UPDATES: usize = 4096;
/// Size of the frame where there is no terminal to ask.
const WITHOUT_TERMINAL: (u16, u16) = (120, 40);
/// How long the samples of `--once` are waited for.
const ONCE_PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn top(config: Option<&Path>, once: bool) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    // A screen that says nothing but that there is no agent helps nobody.
    if Client::connect(&config.control_socket())?.is_none() {
        return Err(Failure::NoAgent);
    }
    let screen = Screen::new(Enforcer::open(config)?)?;
    if once {
        return screen.once();
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    screen.run()
}

/// What there is to be read.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Waits,
    /// The terminal was taken away.
    Gone,
}

/// Waits for input until the next frame is due. Whoever reads a terminal that is gone, as crossterm does, reads nothing for ever.
fn input() -> std::io::Result<Input> {
    let stdin = stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = Timespec::try_from(FRAME_EVERY).unwrap_or_default();
    match poll(&mut terminal, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = terminal[0].revents();
    Ok(match () {
        () if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => Input::Gone,
        () if seen.contains(PollFlags::IN) => Input::Waits,
        () => Input::Nothing,
    })
}

/// What is shown, and where it comes from.
struct Screen {
    sources: Sources,
    /// All events; they are counted.
    all: Stream,
    /// Those that are shown, where these are not all.
    filtered: Option<Stream>,
    model: Model,
    view: View,
}

impl Screen {
    fn new(enforcer: Enforcer) -> Result<Screen, Failure> {
        let mut sources = Sources::start(enforcer)?;
        let all = sources.follow(Wanted { class: EventClass::All, ..Wanted::default() })?;
        Ok(Screen { sources, all, filtered: None, model: Model::default(), view: View::default() })
    }

    fn run(self) -> Result<Answer, Failure> {
        // Whoever ends this gets the terminal back as it was.
        let is_ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&is_ended)).map_err(Failure::Terminal)?;
        }
        let mut terminal = ratatui::try_init().map_err(Failure::Terminal)?;
        let done = self.show(&mut terminal, &is_ended);
        ratatui::try_restore().map_err(Failure::Terminal)?;
        done
    }

    fn show(mut self, terminal: &mut DefaultTerminal, is_ended: &AtomicBool) -> Result<Answer, Failure> {
        while !is_ended.load(Ordering::Relaxed) {
            self.take_in();
            terminal.draw(|frame| draw::draw(frame, &self.model, &mut self.view)).map_err(Failure::Terminal)?;
            match input().map_err(Failure::Terminal)? {
                Input::Gone => break,
                // The size of the terminal comes in another way.
                Input::Nothing | Input::Waits if !event::poll(Duration::ZERO).map_err(Failure::Terminal)? => continue,
                Input::Nothing | Input::Waits => {}
            }
            let event::Event::Key(key) = event::read().map_err(Failure::Terminal)? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match self.view.key(key) {
                Wish::Nothing => {}
                Wish::Quit => break,
                Wish::Pause => self.model.events.pause(),
                Wish::Filter(text) => self.filter(text)?,
            }
        }
        Ok(Answer::Yes)
    }

    /// One frame as text, with the rates of one interval.
    fn once(mut self) -> Result<Answer, Failure> {
        let since = Instant::now();
        while self.model.rates.is_none() && self.model.trouble.is_none() && since.elapsed() < ONCE_PATIENCE {
            self.take_in();
            std::thread::sleep(FRAME_EVERY);
        }
        if let (Some(trouble), None) = (&self.model.trouble, &self.model.sample) {
            return Err(Failure::NoSample(trouble.clone()));
        }
        let (width, height) = match stdout().is_terminal() {
            true => terminal::size().map_err(Failure::Terminal)?,
            false => WITHOUT_TERMINAL,
        };
        text(&self.model, &mut self.view, width, height).iter().try_for_each(|line| output::line(line))?;
        Ok(Answer::Yes)
    }

    fn take_in(&mut self) {
        for update in self.sources.updates.try_iter().take(MAX_UPDATES) {
            let shown = self.filtered.as_ref().map_or(self.all.number, |stream| stream.number);
            match update {
                Update::Sample(sample) => self.model.sampled(*sample),
                Update::Trouble(trouble) => self.model.trouble = Some(trouble),
                Update::Event(stream, event) => {
                    if stream == self.all.number {
                        self.model.count(&event);
                    }
                    if stream == shown {
                        self.model.events.push(event);
                    }
                }
                Update::Lost(stream, class, lost) => {
                    if stream == shown || stream == self.all.number {
                        self.model.missed(class, lost);
                    }
                }
            }
        }
    }

    /// Shows only what a text wants, from now on.
    fn filter(&mut self, text: String) -> Result<(), Failure> {
        match bar::wanted(&text) {
            Ok(wanted) => {
                self.filtered = wanted.map(|wanted| self.sources.follow(wanted)).transpose()?;
                self.model.events.clear();
                (self.view.filter, self.view.refused, self.view.below) = (text.trim().to_owned(), None, 0);
            }
            Err(reason) => self.view.refused = Some(reason),
        }
        Ok(())
    }
}

/// A frame as lines.
fn text(model: &Model, view: &mut View, width: u16, height: u16) -> Vec<String> {
    // A terminal that nobody has given a size has none.
    let (width, height) = (width.max(1), height.max(1));
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, model, view));
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
    cells.chunks(usize::from(width)).map(|row| row.concat().trim_end().to_owned()).collect()
}
