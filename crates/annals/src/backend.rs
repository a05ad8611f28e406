//! The backends, and which of them this build has.

use std::fmt;

use crate::Registered;

/// A kind of database that annals can keep events in.
///
/// ```
/// use annals::Backend;
///
/// let backend = Backend::of("postgres://user:password@host/shop")?;
/// assert_eq!(backend, Backend::Postgres);
/// if !backend.is_enabled() {
///     println!("build with the feature {:?} of the crate annals", backend.feature());
/// }
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The memory of this process: `memory:`.
    Memory,
    /// An SQLite file: `sqlite:`.
    Sqlite,
    /// A schema in PostgreSQL: `postgres:` or `postgresql:`.
    Postgres,
    /// The event tables of Marten, the event store for .NET on PostgreSQL: `marten:`.
    Marten,
    /// A table in DynamoDB: `dynamodb:`.
    DynamoDb,
    /// EventStoreDB or KurrentDB: `esdb:` or `kurrentdb:`, each also with `+discover`.
    EventStoreDb,
    /// A backend of another crate: see [`register`](crate::register).
    Registered(Registered),
}

impl Backend {
    /// Every backend of this workspace, in every build.
    pub const ALL: &'static [Self] = &[
        Self::Memory,
        Self::Sqlite,
        Self::Postgres,
        Self::Marten,
        Self::DynamoDb,
        Self::EventStoreDb,
    ];

    /// The backend's name, as in [`Capabilities::backend`](crate::Capabilities::backend) and in
    /// errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registered(registered) => registered.opener().name(),
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Marten => "marten",
            Self::DynamoDb => "dynamodb",
            Self::EventStoreDb => "eventstoredb",
        }
    }

    /// The feature of the crate `annals` that compiles this backend; `None` for a backend of another
    /// crate.
    #[must_use]
    pub fn feature(self) -> Option<&'static str> {
        (!matches!(self, Self::Registered(_))).then(|| self.name())
    }

    /// Whether this build has the backend, which means that its [feature](Self::feature) is on.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        match self {
            Self::Registered(_) => true,
            Self::Memory => cfg!(feature = "memory"),
            Self::Sqlite => cfg!(feature = "sqlite"),
            Self::Postgres => cfg!(feature = "postgres"),
            Self::Marten => cfg!(feature = "marten"),
            Self::DynamoDb => cfg!(feature = "dynamodb"),
            Self::EventStoreDb => cfg!(feature = "eventstoredb"),
        }
    }

    /// The schemes of the backend's URLs, in lower case and without the colon.
    #[must_use]
    pub fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Registered(registered) => registered.opener().schemes(),
            Self::Memory => &["memory"],
            Self::Sqlite => &["sqlite"],
            Self::Postgres => &["postgres", "postgresql"],
            Self::Marten => &["marten"],
            Self::DynamoDb => &["dynamodb"],
            Self::EventStoreDb => &["esdb", "esdb+discover", "kurrentdb", "kurrentdb+discover"],
        }
    }
}

/// The backend's [name](Backend::name).
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_belongs_to_one_backend() {
        let mut schemes: Vec<_> =
            Backend::ALL.iter().flat_map(|backend| backend.schemes()).collect();
        let count = schemes.len();
        schemes.sort_unstable();
        schemes.dedup();
        assert_eq!(schemes.len(), count);
        assert!(schemes.iter().all(|scheme| **scheme == scheme.to_ascii_lowercase()));
    }
}
