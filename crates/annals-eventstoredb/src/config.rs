//! The options of a store.

use std::{fmt, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use kurrentdb::{ClientSettings, Credentials};

/// The options of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStoreDbOptions {
    /// A prefix for the names of all streams on the server, so that several stores can share it: in
    /// the namespace `shop` the stream `order-42` is called `shop.order-42` there. A `.` in a namespace
    /// is written `%2E` there, so that `acme` has no stream of `acme.eu`. Unset by default; a store without a namespace sees the streams of all others. 1 to 64 bytes without
    /// control characters, not beginning with `$`.
    pub namespace: Option<String>,
    /// How long requests are retried while the server cannot be reached or the cluster is choosing
    /// a leader, if a retry is safe. 15 seconds by default; zero turns retries off. Subscriptions
    /// retry without a limit.
    pub retry_for: Duration,
    /// How long to wait for the answer to one request, or for the next event of a read. 10 seconds by
    /// default. The call then fails with [`ErrorKind::Unavailable`], and an append may have been
    /// written all the same. A read of all with a filter may wait for longer, since the server says
    /// nothing until an event matches: the connection's probes tell that the server is there.
    pub deadline: Duration,
    /// How long a subscription that catches up waits for the server to say something, before it reads
    /// whether there is more. Servers from 23.10 on say when there is not. A second by default.
    pub poll_interval: Duration,
}

impl Default for EventStoreDbOptions {
    fn default() -> Self {
        Self {
            namespace: None,
            retry_for: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            poll_interval: Duration::from_secs(1),
        }
    }
}

impl EventStoreDbOptions {
    /// The longest namespace, in bytes.
    pub const MAX_NAMESPACE_BYTES: usize = 64;

    /// Sets the [`namespace`](Self::namespace).
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets [`retry_for`](Self::retry_for).
    #[must_use]
    pub fn with_retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Sets the [`deadline`](Self::deadline).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the [`poll_interval`](Self::poll_interval).
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Refuses options that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        if let Some(namespace) = &self.namespace {
            let most = Self::MAX_NAMESPACE_BYTES;
            let fits = (1..=most).contains(&namespace.len());
            if !fits || namespace.starts_with('$') || namespace.chars().any(char::is_control) {
                return invalid(format!(
                    "`namespace` is {namespace:?}; use 1 to {most} bytes without control \
                     characters, and no `$` at the beginning"
                ));
            }
        }
        let times = [("deadline", self.deadline), ("poll_interval", self.poll_interval)];
        match times.iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => invalid(format!("`{name}` is 0; use 1 millisecond or more")),
            None => Ok(()),
        }
    }
}

/// How to open a store.
#[derive(Clone)]
#[non_exhaustive]
pub struct EventStoreDbConfig {
    /// The settings of the official client: hosts, TLS, which node to prefer. The credentials of a URL are not in
    /// here but in [`credentials`](Self::credentials).
    pub settings: ClientSettings,
    /// The user and password that the store sends with each request.
    pub credentials: Option<Credentials>,
    /// The options of the store itself.
    pub options: EventStoreDbOptions,
}

impl EventStoreDbConfig {
    /// A configuration with these settings of the client, and its credentials if it has any.
    #[must_use]
    pub fn new(settings: ClientSettings) -> Self {
        let credentials = settings.default_authenticated_user().clone();
        Self { settings, credentials, options: EventStoreDbOptions::default() }
    }

    /// Sets the options of the store itself.
    #[must_use]
    pub fn with_options(mut self, options: EventStoreDbOptions) -> Self {
        self.options = options;
        self
    }
}

/// Leaves out the credentials. The `Debug` output of the client's settings may show them.
impl fmt::Debug for EventStoreDbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStoreDbConfig")
            .field("hosts", self.settings.hosts())
            .field("tls", &self.settings.is_secure_mode_enabled())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
