//! The filter that a client sets on `$all`.

use annals_core::{Filter, StreamPrefix};
use fancy_regex::Regex;
use tonic::Status;

use crate::proto::shared::{
    FilterOptions,
    filter_options::{Expression, Filter as WireFilter, Window},
};

/// The window of a filter that does not set one, in events.
const DEFAULT_WINDOW: u32 = 32;
/// An expression that backtracks more often than this on one name ends the call with an error: it
/// would keep a thread of the server busy.
const MAX_BACKTRACKS: usize = 100_000;

/// A filter by the stream's name or by the event type.
#[derive(Debug)]
pub(crate) struct EventFilter {
    on_stream: bool,
    prefixes: Vec<String>,
    regex: Option<Regex>,
    /// The text with which all names begin that the expression matches, if it says nothing else.
    literal: Option<String>,
    /// True if the expression matches the names that do not begin with `$`, with which clients leave
    /// out system events.
    no_system: bool,
    /// A subscriber gets a checkpoint after this many events in a row that do not match.
    pub(crate) checkpoint_every: u64,
}

impl EventFilter {
    pub(crate) fn new(options: FilterOptions) -> Result<Self, Status> {
        let (on_stream, Expression { regex, prefix }) = match options.filter {
            Some(WireFilter::StreamIdentifier(expression)) => (true, expression),
            Some(WireFilter::EventType(expression)) => (false, expression),
            None => {
                return Err(Status::invalid_argument(
                    "the filter has neither a stream name nor an event type",
                ));
            }
        };
        let literal = literal_prefix(&regex);
        let no_system = regex == "^[^$]" || regex == r"^[^\$]";
        let regex = (!regex.is_empty()).then(|| compile(&regex)).transpose()?;
        let window = match options.window {
            Some(Window::Max(0)) => {
                return Err(Status::invalid_argument(
                    "the filter's window is 0; set it to 1 or more",
                ));
            }
            Some(Window::Max(max)) => max,
            Some(Window::Count(_)) => DEFAULT_WINDOW,
            None => return Err(Status::invalid_argument("the filter has no window")),
        };
        let multiplier = options.checkpoint_interval_multiplier;
        let checkpoint_every = u64::from(window) * u64::from(multiplier);
        Ok(Self { on_stream, prefixes: prefix, regex, literal, no_system, checkpoint_every })
    }

    /// True if the filter matches. Both names are those on the wire.
    pub(crate) fn matches(&self, stream: &str, event_type: &str) -> Result<bool, Status> {
        let name = if self.on_stream { stream } else { event_type };
        if self.no_system {
            return Ok(!name.is_empty() && !name.starts_with('$'));
        }
        match &self.regex {
            Some(regex) => regex.is_match(name).map_err(|error| {
                Status::invalid_argument(format!(
                    "the filter's expression failed on {name:?}: {error}"
                ))
            }),
            None => Ok(self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))),
        }
    }

    /// The part of the filter that the store can apply: one prefix of stream names, also as an
    /// expression. Clients send those since a real server compares prefixes by culture.
    pub(crate) fn store_filter(&self) -> Filter {
        let prefix = match (self.prefixes.as_slice(), &self.literal) {
            // An expression goes before prefixes.
            (_, Some(literal)) => Some(literal),
            ([prefix], None) if self.regex.is_none() => Some(prefix),
            _ => None,
        };
        let prefix = prefix.filter(|prefix| self.on_stream && !prefix.starts_with('$'));
        let prefix = prefix.and_then(|prefix| StreamPrefix::new(prefix).ok());
        prefix.map_or_else(Filter::default, |prefix| Filter::default().with_prefix(prefix))
    }
}

/// The text of an expression like `^order-`, in which all signs are escaped that mean something else.
fn literal_prefix(regex: &str) -> Option<String> {
    let (mut text, mut chars) = (String::new(), regex.strip_prefix('^')?.chars());
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            _ if r".+*?()|[]{}^$".contains(c) => return None,
            _ => c,
        };
        text.push(literal);
    }
    Some(text).filter(|text| !text.is_empty())
}

/// Compiles with look-ahead, as .NET does: clients exclude names with `^(?!…)`.
fn compile(pattern: &str) -> Result<Regex, Status> {
    fancy_regex::RegexBuilder::new(pattern).backtrack_limit(MAX_BACKTRACKS).build().map_err(
        |error| {
            Status::invalid_argument(format!(
                "the filter's expression {pattern:?} is not valid: {error}"
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(on: impl Fn(Expression) -> WireFilter, regex: &str, prefix: &[&str]) -> EventFilter {
        let prefix = prefix.iter().map(|&prefix| prefix.to_owned()).collect();
        let on = on(Expression { regex: regex.to_owned(), prefix });
        let options = FilterOptions {
            filter: Some(on),
            window: Some(Window::Max(10)),
            checkpoint_interval_multiplier: 3,
        };
        EventFilter::new(options).unwrap()
    }

    #[test]
    fn streams_and_types_match_by_prefix_or_expression() {
        let streams = filter(WireFilter::StreamIdentifier, "", &["order-", "cart-"]);
        assert_eq!(streams.checkpoint_every, 30);
        assert!(streams.matches("cart-1", "T").unwrap());
        assert!(!streams.matches("user-1", "order-").unwrap());
        let types = filter(WireFilter::EventType, r"^(?!(\$.+)$).*$", &[]);
        assert!(types.matches("$x", "Placed").unwrap());
        assert!(!types.matches("x", "$metadata").unwrap());
    }

    #[test]
    fn the_store_applies_one_prefix() {
        let one = filter(WireFilter::StreamIdentifier, "", &["order-"]).store_filter();
        assert_eq!(one.prefix.unwrap().as_str(), "order-");
        let expression = filter(WireFilter::StreamIdentifier, r"^a\.b-", &[]).store_filter();
        assert_eq!(expression.prefix.unwrap().as_str(), "a.b-");
        for other in [
            filter(WireFilter::StreamIdentifier, "^order-.", &[]),
            filter(WireFilter::StreamIdentifier, r"^\$ce-", &[]),
            filter(WireFilter::StreamIdentifier, r"^\d", &[]),
            filter(WireFilter::EventType, "^order-", &[]),
            filter(WireFilter::StreamIdentifier, "order-", &[]),
            filter(WireFilter::StreamIdentifier, "", &["a", "b"]),
            filter(WireFilter::StreamIdentifier, "", &["$"]),
            filter(WireFilter::StreamIdentifier, "", &["e"]),
            filter(WireFilter::EventType, "", &["Placed"]),
        ] {
            let prefix = other.store_filter().prefix;
            assert!(prefix.is_none() || prefix.is_some_and(|prefix| prefix.as_str() == "e"));
        }
    }

    #[test]
    fn the_expression_that_leaves_out_system_events_is_not_searched() {
        for text in ["^[^$]", r"^[^\$]"] {
            let quick = filter(WireFilter::StreamIdentifier, text, &[]);
            let searched =
                EventFilter { no_system: false, ..filter(WireFilter::StreamIdentifier, text, &[]) };
            assert!(quick.no_system);
            for name in ["", "$", "$ce-a", "a", "a$", "é"] {
                assert_eq!(
                    quick.matches(name, "T").unwrap(),
                    searched.matches(name, "T").unwrap(),
                    "{name:?}"
                );
            }
        }
    }

    #[test]
    fn an_expression_that_backtracks_for_ever_is_refused() {
        let slow = filter(WireFilter::StreamIdentifier, r"^(a|aa)+(?=$)b", &[]);
        assert!(slow.matches(&"a".repeat(200), "T").is_err());
    }
}
