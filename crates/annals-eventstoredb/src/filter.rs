//! The part of a filter that the server can apply. It lets through every event that matches the
//! whole filter, and possibly more; the reader applies the whole filter to what the server sends.

use annals_core::Filter;
use annals_eventstoredb_proto::shared::{
    FilterOptions,
    filter_options::{Expression, Filter as Subject, Window},
};

use crate::names::{Names, RECORD_TYPES};

/// All streams but the server's own.
const NO_SYSTEM: &str = "^[^$]";

/// A filter in the form that the server takes: a regular expression for stream names or for event types.
///
/// The server knows prefixes, too, but compares them by culture: by its rules `a` is no prefix of `a`
/// with a combining accent after it, and the event would be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFilter {
    pub(crate) subject: FilterSubject,
    pub(crate) regex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterSubject {
    StreamName,
    EventType,
}

impl ServerFilter {
    /// The part of `filter` that the server can apply. `None` if every event matches.
    pub(crate) fn new(filter: &Filter, names: &Names) -> Option<Self> {
        let category = filter.category.as_ref().map(|category| format!("{category}-"));
        let prefix = filter.prefix.as_ref().map(ToString::to_string);
        // An event has to match both, and the server takes one: the longer one lets fewer through.
        let stream_prefix = category.into_iter().chain(prefix).max_by_key(String::len);
        let on_name = |regex| Some(Self { subject: FilterSubject::StreamName, regex });
        match stream_prefix {
            // System streams are in no namespace.
            Some(prefix) if prefix.starts_with('$') => on_name(format!("^{}", escape(&prefix))),
            Some(prefix) => on_name(format!("^{}{}", escape(names.prefix()), escape(&prefix))),
            None if !names.prefix().is_empty() => {
                let prefix = escape(names.prefix());
                on_name(if filter.include_system {
                    format!("^(?:\\$|{prefix})")
                } else {
                    format!("^{prefix}")
                })
            }
            None if !filter.event_types.is_empty() => {
                let types: Vec<_> = filter.event_types.iter().map(|t| escape(t.as_str())).collect();
                let regex = format!("^(?:{})$", types.join("|"));
                Some(Self { subject: FilterSubject::EventType, regex })
            }
            None if filter.include_system => None,
            None => on_name(NO_SYSTEM.to_owned()),
        }
    }

    /// True if all events that the filter leaves out are in streams of the server's own.
    pub(crate) fn leaves_out_system_only(&self) -> bool {
        self.regex == NO_SYSTEM
    }

    /// A filter that also lets through the events of the server's own, which are most often in streams
    /// and of types that begin with `$`, and the records of this crate.
    pub(crate) fn with_system(&self) -> Self {
        let anchored = self.regex.strip_prefix('^').unwrap_or(&self.regex);
        let system = match self.subject {
            FilterSubject::StreamName => r"\$".to_owned(),
            FilterSubject::EventType => format!(r"\$|(?:{})$", RECORD_TYPES.join("|")),
        };
        Self { subject: self.subject, regex: format!("^(?:{system}|{anchored})") }
    }

    /// The filter of a request. A subscription gets a message after each `window` events that the
    /// server has looked at.
    pub(crate) fn options(&self, window: u32) -> FilterOptions {
        let expression = Expression { regex: self.regex.clone(), prefix: Vec::new() };
        let subject = match self.subject {
            FilterSubject::StreamName => Subject::StreamIdentifier(expression),
            FilterSubject::EventType => Subject::EventType(expression),
        };
        FilterOptions {
            filter: Some(subject),
            // From 0 the server of a read of all never answers.
            window: Some(Window::Max(window.max(1))),
            checkpoint_interval_multiplier: 1,
        }
    }
}

/// Escapes a text for a regular expression, in the dialect of .NET as well as in that of Rust.
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

    fn regex(text: &str) -> String {
        text.to_owned()
    }

    fn prefix(text: &str) -> String {
        format!("^{}", escape(text))
    }

    #[test]
    fn the_server_applies_the_part_that_it_can() {
        use FilterSubject::{EventType as Type, StreamName as Name};
        let category = |name| Filter::default().with_category(Category::new(name).unwrap());
        let begins = |text| StreamPrefix::new(text).unwrap();
        let types = || ["A.b", "C$|"].map(|name| EventType::new(name).unwrap());
        let (none, shop) = (Names::default(), Names::new(Some("shop")));
        let default = Filter::default;
        for (filter, without, within) in [
            (default(), Some((Name, regex("^[^$]"))), Some(prefix("shop."))),
            (default().including_system(), None, Some(regex(r"^(?:\$|shop\.)"))),
            (category("order"), Some((Name, prefix("order-"))), Some(prefix("shop.order-"))),
            (
                category("order").with_prefix(begins("order-1")).with_event_types(types()),
                Some((Name, prefix("order-1"))),
                Some(prefix("shop.order-1")),
            ),
            (
                category("order").with_prefix(begins("o")),
                Some((Name, prefix("order-"))),
                Some(prefix("shop.order-")),
            ),
            (
                default().with_event_types(types()),
                Some((Type, regex(r"^(?:A\.b|C\$\|)$"))),
                Some(prefix("shop.")),
            ),
            (
                default().with_prefix(begins("$ce-")).including_system(),
                Some((Name, prefix("$ce-"))),
                Some(prefix("$ce-")),
            ),
        ] {
            let on_server = ServerFilter::new(&filter, &none);
            assert_eq!(
                on_server.as_ref().is_some_and(ServerFilter::leaves_out_system_only),
                filter == default(),
                "{filter:?}"
            );
            let got = on_server.map(|f| (f.subject, f.regex));
            assert_eq!(got, without, "{filter:?}");
            assert_eq!(ServerFilter::new(&filter, &shop).map(|f| f.regex), within, "{filter:?}");
        }
    }

    #[test]
    fn the_filter_of_a_live_subscription_lets_the_servers_own_events_through() {
        let category = Filter::default().with_category(Category::new("order").unwrap());
        let types = Filter::default().with_event_types([EventType::new("A").unwrap()]);
        for (filter, due) in [
            (category, r"^(?:\$|order-)"),
            (types, r"^(?:\$|(?:annals-snapshot|annals-checkpoint|annals-lease)$|(?:A)$)"),
        ] {
            let filter = ServerFilter::new(&filter, &Names::default()).unwrap();
            assert_eq!(filter.with_system().regex, due);
        }
    }
}
