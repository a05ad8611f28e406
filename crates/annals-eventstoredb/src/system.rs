//! Which streams of the server's own hold what somebody else has put there.

use crate::{names, store::EventStoreDbStore};

/// What a stream whose name begins with `$` holds, for those who move the events of a server elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SystemStream {
    /// What the server makes by itself, such as statistics and the links of its projections, and what
    /// belongs to other namespaces.
    OfServer,
    /// A snapshot, a checkpoint or a lease of this store.
    Record,
    /// The metadata of a stream: of this one, without the prefix of the store's namespace. The last event
    /// counts. Its properties other than `$tb`, such as `$maxAge` and `$acl`, are the stream's settings.
    SettingsOf(String),
    /// What users of the server have put there: consumer groups and their parked events, projections of
    /// their own, accounts, default access lists, events of applications.
    OfUsers,
}

/// The streams that a server has although nobody has asked for them.
const OF_SERVER: [&str; 8] = [
    "$streams",
    "$et",
    "$scavenges",
    "$users",
    "$user-admin",
    "$user-ops",
    "$policies",
    "$epoch-information",
];
/// The same, by the beginnings of their names.
const OF_SERVER_PREFIXES: [&str; 9] = [
    "$ce-",
    "$et-",
    "$bc-",
    "$category-",
    "$stats-",
    "$scavenge-",
    "$mem-",
    // The server's own projections, and what drives those of users.
    "$projections-$",
    "$users-",
];

impl EventStoreDbStore {
    /// What a stream whose name begins with `$` holds. A store in a namespace has of these streams only
    /// the metadata of its own.
    #[must_use]
    pub fn system_stream(&self, name: &str) -> SystemStream {
        classify(name, self.server.names.prefix())
    }
}

fn classify(name: &str, prefix: &str) -> SystemStream {
    if let Some(described) = name.strip_prefix("$$") {
        return match described.strip_prefix(prefix) {
            // Everybody reads it, and administrators say who else may.
            _ if described == "$all" && prefix.is_empty() => {
                SystemStream::SettingsOf(described.to_owned())
            }
            // The server sets the metadata of its own streams.
            _ if described.starts_with('$') => SystemStream::OfServer,
            Some(own) if names::is_reserved(own) => SystemStream::Record,
            Some(own) => SystemStream::SettingsOf(own.to_owned()),
            None => SystemStream::OfServer,
        };
    }
    let is_of_server = !prefix.is_empty()
        || OF_SERVER.contains(&name)
        || OF_SERVER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_of_server { SystemStream::OfServer } else { SystemStream::OfUsers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_have_put_into_streams_of_the_server_is_told_from_what_it_makes() {
        use SystemStream::{OfServer, OfUsers, Record, SettingsOf};
        let settings = |name: &str| SettingsOf(name.to_owned());
        for (name, is) in [
            ("$ce-order", OfServer),
            ("$stats-127.0.0.1:2113", OfServer),
            ("$$$stats-127.0.0.1:2113", OfServer),
            ("$projections-$by_category", OfServer),
            ("$user-admin", OfServer),
            ("$user-jane", OfUsers),
            ("$projections-totals", OfUsers),
            ("$settings", OfUsers),
            ("$persistentSubscriptionConfig", OfUsers),
            ("$persistentsubscription-order-1::mail-parked", OfUsers),
            ("$of-an-application", OfUsers),
            ("$$order-1", settings("order-1")),
            ("$$$all", settings("$all")),
            ("$$annals.checkpoint.totals", Record),
        ] {
            assert_eq!(classify(name, ""), is, "{name}");
        }
        for (name, is) in [
            ("$$shop.order-1", settings("order-1")),
            ("$$order-1", OfServer),
            ("$$shop.annals.lease.x", Record),
            ("$$$all", OfServer),
            ("$settings", OfServer),
        ] {
            assert_eq!(classify(name, "shop."), is, "{name}");
        }
    }
}
