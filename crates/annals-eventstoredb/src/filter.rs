//! As much of a filter as the server can run. It never leaves out what the filter lets through;
//! whatever it lets through beyond that is left out here.

use annals_core::Filter;
use kurrentdb::SubscriptionFilter;

use crate::names::Names;

/// A filter that the server runs: on the names of streams, or on types of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFilter {
    pub(crate) on: On,
    pub(crate) by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Stream,
    EventType,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Prefix(String),
    Regex(String),
}

/// After how many events that it left out the server stops to say how far it has come.
pub(crate) const WINDOW: u32 = 1_000;

impl ServerFilter {
    /// What the server can do of a filter: nothing where every event is wanted.
    pub(crate) fn new(filter: &Filter, names: &Names) -> Option<Self> {
        let category = filter.category.as_ref().map(|category| format!("{category}-"));
        let prefix = filter.prefix.as_ref().map(ToString::to_string);
        // Both must hold, so either will do: the longer one lets less through.
        let begins = category.into_iter().chain(prefix).max_by_key(String::len);
        let on_stream = |by| Some(Self { on: On::Stream, by });
        match begins {
            // The server's own streams are in no namespace.
            Some(begins) if begins.starts_with('$') => on_stream(By::Prefix(begins)),
            Some(begins) => on_stream(By::Prefix(format!("{}{begins}", names.prefix()))),
            None if !names.prefix().is_empty() => {
                let prefix = names.prefix();
                on_stream(if filter.include_system {
                    By::Regex(format!("^(?:\\$|{})", escape(prefix)))
                } else {
                    By::Prefix(prefix.to_owned())
                })
            }
            None if !filter.event_types.is_empty() => {
                let types: Vec<_> = filter.event_types.iter().map(|t| escape(t.as_str())).collect();
                let by = By::Regex(format!("^(?:{})$", types.join("|")));
                Some(Self { on: On::EventType, by })
            }
            None if filter.include_system => None,
            None => on_stream(By::Regex("^[^$]".to_owned())),
        }
    }

    pub(crate) fn of_client(&self) -> SubscriptionFilter {
        let filter = match self.on {
            On::Stream => SubscriptionFilter::on_stream_name(),
            On::EventType => SubscriptionFilter::on_event_type(),
        };
        match &self.by {
            By::Prefix(prefix) => filter.add_prefix(prefix),
            By::Regex(regex) => filter.regex(regex),
        }
        .max(WINDOW)
    }
}

/// A text as a regular expression, for the server's dialect as well as for Rust's.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use annals_core::{Category, EventType, StreamPrefix};

    use super::*;

    fn prefix(text: &str) -> By {
        By::Prefix(text.to_owned())
    }

    fn regex(text: &str) -> By {
        By::Regex(text.to_owned())
    }

    #[test]
    fn the_server_does_what_it_can() {
        let category = |name| Filter::default().with_category(Category::new(name).unwrap());
        let begins = |text| StreamPrefix::new(text).unwrap();
        let types = || ["A.b", "C$|"].map(|name| EventType::new(name).unwrap());
        let (none, shop) = (Names::default(), Names::new(Some("shop")));
        let default = Filter::default;
        for (filter, without, within) in [
            (default(), Some((On::Stream, regex("^[^$]"))), Some(prefix("shop."))),
            (default().including_system(), None, Some(regex(r"^(?:\$|shop\.)"))),
            (category("order"), Some((On::Stream, prefix("order-"))), Some(prefix("shop.order-"))),
            (
                category("order").with_prefix(begins("order-1")).with_event_types(types()),
                Some((On::Stream, prefix("order-1"))),
                Some(prefix("shop.order-1")),
            ),
            (
                category("order").with_prefix(begins("o")),
                Some((On::Stream, prefix("order-"))),
                Some(prefix("shop.order-")),
            ),
            (
                default().with_event_types(types()),
                Some((On::EventType, regex(r"^(?:A\.b|C\$\|)$"))),
                Some(prefix("shop.")),
            ),
            (
                default().with_prefix(begins("$ce-")).including_system(),
                Some((On::Stream, prefix("$ce-"))),
                Some(prefix("$ce-")),
            ),
        ] {
            let got = ServerFilter::new(&filter, &none).map(|f| (f.on, f.by));
            assert_eq!(got, without, "{filter:?}");
            assert_eq!(ServerFilter::new(&filter, &shop).map(|f| f.by), within, "{filter:?}");
        }
    }
}
