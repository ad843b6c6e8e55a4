//! Where one looks: which pane, how far it is scrolled, and what is being typed. Keys change it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::bar::MAX_CHARS;

/// A pane that can be scrolled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pane {
    /// Containers and their processes.
    #[default]
    Tree,
    Events,
}

/// Lines that a page key moves by.
const PAGE: usize = 10;

/// Where one looks.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) focus: Pane,
    /// Lines above the first that is shown of the tree.
    pub(super) above: usize,
    /// Events below the last that is shown; 0 follows the newest.
    pub(super) below: usize,
    /// The filter that is in force.
    pub(super) filter: String,
    /// What is being typed in its place.
    pub(super) typing: Option<String>,
    /// Why the last that was typed is not in force.
    pub(super) refused: Option<String>,
}

/// What a key wants that is more than another look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    Pause,
    /// What was typed is to be in force.
    Filter(String),
}

impl View {
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Nothing };
        }
        if self.typing.is_some() {
            return self.typed(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char(' ') => return Wish::Pause,
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = if self.focus == Pane::Tree { Pane::Events } else { Pane::Tree };
            }
            KeyCode::Up => self.scroll(-1),
            KeyCode::Down => self.scroll(1),
            KeyCode::PageUp => self.scroll(-PAGE.cast_signed()),
            KeyCode::PageDown => self.scroll(PAGE.cast_signed()),
            KeyCode::Home => self.scroll(isize::MIN + 1),
            KeyCode::End => self.scroll(isize::MAX),
            _ => {}
        }
        Wish::Nothing
    }

    fn typed(&mut self, code: KeyCode) -> Wish {
        let Some(text) = &mut self.typing else { return Wish::Nothing };
        match code {
            KeyCode::Enter => return Wish::Filter(self.typing.take().unwrap_or_default()),
            KeyCode::Esc => (self.typing, self.refused) = (None, None),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(c) if !c.is_control() && text.chars().count() < MAX_CHARS => text.push(c),
            _ => {}
        }
        Wish::Nothing
    }

    /// Down the screen by so many lines, which of events is to newer ones. Where the end is, drawing finds out.
    fn scroll(&mut self, lines: isize) {
        match self.focus {
            Pane::Tree => self.above = self.above.saturating_add_signed(lines),
            Pane::Events => self.below = self.below.saturating_add_signed(-lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> Wish {
        view.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_move_the_pane_that_has_the_focus() {
        let mut view = View::default();
        press(&mut view, KeyCode::Down);
        press(&mut view, KeyCode::PageDown);
        press(&mut view, KeyCode::Up);
        assert_eq!((view.above, view.below), (10, 0));
        press(&mut view, KeyCode::Tab);
        press(&mut view, KeyCode::Up);
        assert_eq!((view.focus, view.above, view.below), (Pane::Events, 10, 1));
        press(&mut view, KeyCode::End);
        assert_eq!(view.below, 0, "the newest");
        press(&mut view, KeyCode::Tab);
        press(&mut view, KeyCode::Home);
        assert_eq!(view.above, 0);
    }

    #[test]
    fn a_filter_is_typed_until_enter_and_forgotten_by_escape() {
        let mut view = View { filter: "x".to_owned(), ..View::default() };
        press(&mut view, KeyCode::Char('/'));
        for key in [KeyCode::Backspace, KeyCode::Char('q'), KeyCode::Char(' '), KeyCode::Char('\u{1b}')] {
            assert_eq!(press(&mut view, key), Wish::Nothing, "keys are text now");
        }
        assert_eq!(view.typing.as_deref(), Some("q "));
        assert_eq!(press(&mut view, KeyCode::Enter), Wish::Filter("q ".to_owned()));
        press(&mut view, KeyCode::Char('/'));
        (0..2 * MAX_CHARS).for_each(|_| drop(press(&mut view, KeyCode::Char('a'))));
        assert_eq!(view.typing.as_ref().unwrap().len(), MAX_CHARS);
        press(&mut view, KeyCode::Esc);
        assert_eq!((view.typing.as_ref(), view.filter.as_str()), (None, "x"));
    }

    #[test]
    fn one_leaves_by_q_or_control_c_even_while_typing() {
        let mut view = View::default();
        assert_eq!((press(&mut view, KeyCode::Char(' ')), press(&mut view, KeyCode::Char('q'))), (Wish::Pause, Wish::Quit));
        press(&mut view, KeyCode::Char('/'));
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }
}
