//! The options of a store.

use std::{fmt, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use kurrentdb::{ClientSettings, Credentials};

/// What a store is like, whoever makes its client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStoreDbOptions {
    /// What stands, with a `.` behind it, before the id of every stream on the server, so that
    /// several stores share it: none unless set. 1 to 64 bytes without control characters, and no
    /// `$` at the beginning. A store without one sees the streams of all others.
    pub namespace: Option<String>,
    /// How long what is safe to send again is sent again, where the server cannot be reached or is
    /// choosing a leader: 15 seconds unless set; zero means never. Subscriptions try for ever.
    pub retry_for: Duration,
    /// How long to wait for the answer to one request: 10 seconds unless set. After it the call
    /// fails with [`ErrorKind::Unavailable`]; an append may have been written.
    pub deadline: Duration,
    /// How often subscribers look by themselves, in case nobody woke them: every second unless set.
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

    /// Sets what stands before the id of every stream on the server.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets how long what is safe to send again is sent again.
    #[must_use]
    pub fn with_retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Sets how long to wait for the answer to one request.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often subscribers look by themselves.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Refuses what could not work.
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

/// How a store is opened with a client of its own.
#[derive(Clone)]
#[non_exhaustive]
pub struct EventStoreDbConfig {
    /// Servers, TLS, and how the client picks one; without the credentials of a URL.
    pub settings: ClientSettings,
    /// Who the store is to the server.
    pub credentials: Option<Credentials>,
    /// What the store is like.
    pub options: EventStoreDbOptions,
}

impl EventStoreDbConfig {
    /// A store on these servers.
    #[must_use]
    pub fn new(settings: ClientSettings) -> Self {
        let credentials = settings.default_authenticated_user().clone();
        Self { settings, credentials, options: EventStoreDbOptions::default() }
    }

    /// Reads a URL: `esdb://user:password@host:2113`, with several hosts
    /// (`esdb://a:2113,b:2113,c:2113`) or the name of a cluster (`esdb+discover://cluster:2113`).
    /// `kurrentdb` stands for `esdb` as well. Special characters of user and password are written
    /// as `%40` and the like. Any of these parameters may follow:
    ///
    /// * of the store: `namespace`, and, in milliseconds, `retry_for`, `deadline`, `poll_interval`;
    /// * of the client: `tls`, `tlsVerifyCert`, `tlsCAFile`, `userCertFile`, `userKeyFile`,
    ///   `nodePreference` (`leader`, `follower`, `random`, `readOnlyReplica`),
    ///   `maxDiscoverAttempts`, `discoveryInterval`, `gossipTimeout`, `keepAliveInterval`,
    ///   `keepAliveTimeout`, `connectionName`.
    ///
    /// `discoveryInterval` is 20 ms unless it is set here: the client waits as long before its first
    /// try, too, and half a second unless told.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the part that is wrong, and what it could be; never with
    /// the password.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::url::parse(url)
    }

    /// Sets what the store is like.
    #[must_use]
    pub fn with_options(mut self, options: EventStoreDbOptions) -> Self {
        self.options = options;
        self
    }
}

/// Without the credentials, which the client's own settings would show.
impl fmt::Debug for EventStoreDbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStoreDbConfig")
            .field("hosts", self.settings.hosts())
            .field("tls", &self.settings.is_secure_mode_enabled())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
