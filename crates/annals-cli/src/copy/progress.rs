//! The progress of a copy: a bar on a terminal, and a line every few seconds elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use annals::Position;
use indicatif::{HumanBytes, HumanCount, ProgressBar};

use crate::output;

/// How often a line is printed if standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The same while a copy follows its source and nothing is to be copied.
const IDLE_LINE_EVERY: Duration = Duration::from_secs(600);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    began: Instant,
    line: Instant,
    events: u64,
    bytes: u64,
    /// The position for which the bar is empty.
    from: u64,
    following: bool,
    told_in_step: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool, from: &str, to: &str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = (is_terminal && !quiet).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        let progress = Self {
            bar,
            quiet,
            began: now,
            line: now,
            events: 0,
            bytes: 0,
            from: 0,
            following: false,
            told_in_step: false,
        };
        progress.say(&format!("{} to {}", bold(from), bold(to)));
        progress
    }

    /// Shows a bar from one position to another. The number of events is not known, so positions
    /// stand for events.
    pub(crate) fn until(&mut self, from: Position, last: Position) {
        self.from = from.get();
        let Some(bar) = &self.bar else { return };
        bar.set_length(last.get().saturating_sub(from.get()));
        bar.set_style(output::bar("{bar:30.cyan/dim} {percent:>3}%  {msg}  {eta} left"));
    }

    pub(crate) fn follow(&mut self) {
        self.following = true;
        self.told_in_step = false;
        if let Some(bar) = &self.bar {
            bar.set_style(output::bar("{spinner} {msg}"));
        }
    }

    pub(crate) fn is_following(&self) -> bool {
        self.following
    }

    /// Says once that the target has all events of the source.
    pub(crate) fn in_step(&mut self) {
        if !std::mem::replace(&mut self.told_in_step, true) {
            self.say(
                "in step: new events are copied as they come; Ctrl-C copies the rest and ends",
            );
        }
    }

    pub(crate) fn copied(&mut self, events: usize, bytes: usize, at: Position) {
        self.events += events as u64;
        self.bytes += bytes as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(at.get().saturating_sub(self.from));
            bar.set_message(self.figures());
        } else if let Some(line) = self.due(Instant::now(), at, LINE_EVERY) {
            self.say(&line);
        }
    }

    /// Nothing is to be copied.
    pub(crate) fn idle(&mut self, at: Position) {
        if self.bar.is_none()
            && let Some(line) = self.due(Instant::now(), at, IDLE_LINE_EVERY)
        {
            self.say(&line);
        }
    }

    /// The line to print now, if the last one is long enough ago.
    fn due(&mut self, now: Instant, at: Position, every: Duration) -> Option<String> {
        if now.saturating_duration_since(self.line) < every {
            return None;
        }
        self.line = now;
        let place =
            if self.following { format!("in step at position {at}: ") } else { String::new() };
        Some(format!("{place}{}", self.figures()))
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| output::say(text)),
            None => output::say(text),
        }
    }

    pub(crate) fn end(&self, how: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.say(&format!("{how}: {}", self.figures()));
    }

    fn figures(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rate for people"
        )]
        let rate = (self.events as f64 / seconds) as u64;
        format!(
            "{} events, {}, {}/s",
            HumanCount(self.events),
            HumanBytes(self.bytes),
            HumanCount(rate)
        )
    }
}

fn bold(text: &str) -> String {
    output::styled(output::BOLD, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_follows_says_something_now_and_then() {
        let mut progress = Progress::new(true, "a", "b");
        progress.bar = None;
        let (begin, at) = (progress.line, Position::new(7));
        assert_eq!(progress.due(begin + LINE_EVERY / 2, at, LINE_EVERY), None);
        let line = progress.due(begin + LINE_EVERY, at, LINE_EVERY).unwrap();
        assert!(line.starts_with("0 events"), "{line}");
        progress.follow();
        assert_eq!(progress.due(begin + LINE_EVERY, at, LINE_EVERY), None);
        let line = progress.due(begin + 2 * LINE_EVERY, at, LINE_EVERY).unwrap();
        assert!(line.starts_with("in step at position 7: 0 events"), "{line}");
        assert_eq!(progress.due(begin + IDLE_LINE_EVERY, at, IDLE_LINE_EVERY), None);
        let late = begin + 2 * LINE_EVERY + IDLE_LINE_EVERY;
        assert!(progress.due(late, at, IDLE_LINE_EVERY).is_some());
    }
}
