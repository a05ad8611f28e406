//! Filters, with prefixes that are compared by culture as .NET does.

use fancy_regex::Regex;
use tonic::Status;

use super::log::Record;
use crate::proto::shared::{
    FilterOptions,
    filter_options::{Expression, Filter, Window},
};

#[derive(Debug)]
pub(super) struct EventFilter {
    on_stream: bool,
    prefixes: Vec<String>,
    regex: Option<Regex>,
    /// A subscriber gets a checkpoint after this many events, whether they match or not.
    pub(super) checkpoint_every: u64,
}

impl EventFilter {
    pub(super) fn new(options: FilterOptions) -> Result<Self, Status> {
        let invalid = |what: &str| Status::invalid_argument(what.to_owned());
        let (on_stream, Expression { regex, prefix }) = match options.filter {
            Some(Filter::StreamIdentifier(expression)) => (true, expression),
            Some(Filter::EventType(expression)) => (false, expression),
            None => return Err(invalid("FilterOption.Filter is missing")),
        };
        let regex = if regex.is_empty() {
            None
        } else {
            Some(Regex::new(&regex).map_err(|e| Status::unknown(e.to_string()))?)
        };
        let window = match options.window {
            Some(Window::Max(max)) => max.max(1),
            Some(Window::Count(_)) => u32::MAX,
            None => return Err(invalid("FilterOption.Window is missing")),
        };
        if options.checkpoint_interval_multiplier == 0 {
            return Err(Status::unknown("Exception was thrown by handler."));
        }
        let every = u64::from(window) * u64::from(options.checkpoint_interval_multiplier);
        Ok(Self { on_stream, prefixes: prefix, regex, checkpoint_every: every })
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let name = if self.on_stream { &record.stream } else { &record.event.event_type };
        match &self.regex {
            Some(regex) => regex.is_match(name).unwrap_or(false),
            None => self.prefixes.iter().any(|prefix| begins_with(name, prefix)),
        }
    }
}

/// By culture, a character and the combining characters after it are one.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.chars().next().is_some_and(combines))
}

fn combines(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}
