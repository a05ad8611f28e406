//! Which events of `$all` a client wants.

use annals_core::{Filter, StreamPrefix};
use fancy_regex::Regex;
use tonic::Status;

use crate::proto::shared::{
    FilterOptions,
    filter_options::{Expression, Filter as On, Window},
};

/// How many events are looked at before a subscriber is told how far it is, unless it says.
const WINDOW: u32 = 32;
/// A pattern that takes more steps than this for one name is refused: it would hold up the server.
const MOST_STEPS: usize = 100_000;

/// A filter by the name of the stream, or of the type.
#[derive(Debug)]
pub(crate) struct EventFilter {
    on_stream: bool,
    prefixes: Vec<String>,
    regex: Option<Regex>,
    /// After so many events, whether wanted or not, comes a checkpoint.
    pub(crate) checkpoint_every: u64,
}

impl EventFilter {
    pub(crate) fn new(options: FilterOptions) -> Result<Self, Status> {
        let (on_stream, Expression { regex, prefix }) = match options.filter {
            Some(On::StreamIdentifier(expression)) => (true, expression),
            Some(On::EventType(expression)) => (false, expression),
            None => return Err(Status::invalid_argument("the filter is empty")),
        };
        let regex = (!regex.is_empty()).then(|| compile(&regex)).transpose()?;
        let window = match options.window {
            Some(Window::Max(0)) => {
                return Err(Status::invalid_argument("the filter's window is 0; use 1 or more"));
            }
            Some(Window::Max(max)) => max,
            Some(Window::Count(_)) | None => WINDOW,
        };
        let multiplier = options.checkpoint_interval_multiplier.max(1);
        let checkpoint_every = u64::from(window) * u64::from(multiplier);
        Ok(Self { on_stream, prefixes: prefix, regex, checkpoint_every })
    }

    /// Whether an event is wanted, by the names that it has on the wire.
    pub(crate) fn matches(&self, stream: &str, event_type: &str) -> Result<bool, Status> {
        let name = if self.on_stream { stream } else { event_type };
        match &self.regex {
            Some(regex) => regex.is_match(name).map_err(|error| {
                Status::invalid_argument(format!("the filter's expression on {name:?}: {error}"))
            }),
            None => Ok(self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))),
        }
    }

    /// As much of it as the store can do by itself.
    pub(crate) fn of_store(&self) -> Filter {
        let prefix = match self.prefixes.as_slice() {
            [one] if self.on_stream && self.regex.is_none() && !one.starts_with('$') => {
                StreamPrefix::new(one).ok()
            }
            _ => None,
        };
        prefix.map_or_else(Filter::default, |prefix| Filter::default().with_prefix(prefix))
    }
}

/// Clients exclude names by looking ahead, as the expressions of .NET can.
fn compile(pattern: &str) -> Result<Regex, Status> {
    fancy_regex::RegexBuilder::new(pattern).backtrack_limit(MOST_STEPS).build().map_err(|error| {
        Status::invalid_argument(format!("the filter's expression {pattern:?}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(on: impl Fn(Expression) -> On, regex: &str, prefix: &[&str]) -> EventFilter {
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
    fn by_stream_or_type_by_prefix_or_expression() {
        let streams = filter(On::StreamIdentifier, "", &["order-", "cart-"]);
        assert_eq!(streams.checkpoint_every, 30);
        assert!(streams.matches("cart-1", "T").unwrap());
        assert!(!streams.matches("user-1", "order-").unwrap());
        let types = filter(On::EventType, r"^(?!(\$.+)$).*$", &[]);
        assert!(types.matches("$x", "Placed").unwrap());
        assert!(!types.matches("x", "$metadata").unwrap());
    }

    #[test]
    fn the_store_does_what_it_can() {
        let one = filter(On::StreamIdentifier, "", &["order-"]).of_store();
        assert_eq!(one.prefix.unwrap().as_str(), "order-");
        for other in [
            filter(On::StreamIdentifier, "^order-", &[]),
            filter(On::StreamIdentifier, "", &["a", "b"]),
            filter(On::StreamIdentifier, "", &["$"]),
            filter(On::StreamIdentifier, "", &["e"]),
            filter(On::EventType, "", &["Placed"]),
        ] {
            let prefix = other.of_store().prefix;
            assert!(prefix.is_none() || prefix.is_some_and(|prefix| prefix.as_str() == "e"));
        }
    }

    #[test]
    fn an_expression_that_never_ends_is_refused() {
        let slow = filter(On::StreamIdentifier, r"^(a|aa)+(?=$)b", &[]);
        assert!(slow.matches(&"a".repeat(200), "T").is_err());
    }
}
