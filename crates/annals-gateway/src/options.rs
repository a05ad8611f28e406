//! The options of a gateway.

use std::{fmt, time::Duration};

use crate::auth::Auth;

/// Whether connections are encrypted.
#[non_exhaustive]
pub enum Security {
    /// No TLS: others on the network can read and change what is sent.
    Insecure,
    /// TLS, with a chain of certificates and a private key, both as PEM.
    Tls {
        /// The certificates, the server's own first.
        certificates: String,
        /// The private key of the server's certificate.
        key: String,
    },
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insecure => "Insecure",
            Self::Tls { .. } => "Tls",
        })
    }
}

/// Who may call the gateway, and the gateway's limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GatewayOptions {
    pub(crate) auth: Auth,
    /// The host and port to which clients that ask for the members of the cluster are sent. If not
    /// set: the address of the listener.
    pub advertise: Option<(String, u16)>,
    /// The most bytes of data in one append: 1 MiB unless set, as in EventStoreDB, and never more than
    /// the store accepts. Metadata and types do not count, but one message has at most 16 MiB, or this
    /// limit if it is greater.
    pub max_append_bytes: usize,
    /// How many reads, subscriptions and batch appends may be open at the same time: 10,000 unless
    /// set. The gateway refuses more with `RESOURCE_EXHAUSTED`.
    pub max_open: usize,
    /// How many calls may be open on one connection: 1,000 unless set.
    pub max_calls_per_connection: u32,
    /// How many connections may be open: 10,000 unless set. Further clients wait until one is closed.
    pub max_connections: usize,
    /// How long a client may be connected without asking for anything: 30 seconds unless set.
    pub max_silence: Duration,
    /// How many bytes of messages that have not arrived whole may be in memory: 256 MiB unless set. Further
    /// messages over 16 KiB wait, and their clients send no more until there is room.
    pub max_request_memory: usize,
    /// How long a call may take until it begins to answer: 30 seconds unless set. Reads and
    /// subscriptions have begun to answer with their first message.
    pub timeout: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            auth: Auth::default(),
            advertise: None,
            max_append_bytes: 1024 * 1024,
            max_open: 10_000,
            max_calls_per_connection: 1_000,
            max_connections: 10_000,
            max_silence: Duration::from_secs(30),
            max_request_memory: 256 * 1024 * 1024,
            timeout: Duration::from_secs(30),
        }
    }
}

impl GatewayOptions {
    /// Lets in only this user. Everybody is let in unless set.
    #[must_use]
    pub fn with_user(mut self, user: &str, password: &str) -> Self {
        self.auth = Auth::new(user, password);
        self
    }

    /// Sets the host and port to which clients connect.
    #[must_use]
    pub fn with_advertise(mut self, host: impl Into<String>, port: u16) -> Self {
        self.advertise = Some((host.into(), port));
        self
    }

    /// Sets the most bytes of data in one append.
    #[must_use]
    pub fn with_max_append_bytes(mut self, bytes: usize) -> Self {
        self.max_append_bytes = bytes;
        self
    }

    /// Sets how many reads, subscriptions and batch appends may be open at the same time.
    #[must_use]
    pub fn with_max_open(mut self, count: usize) -> Self {
        self.max_open = count;
        self
    }

    /// Sets how many calls may be open on one connection.
    #[must_use]
    pub fn with_max_calls_per_connection(mut self, count: u32) -> Self {
        self.max_calls_per_connection = count;
        self
    }

    /// Sets how many connections may be open.
    #[must_use]
    pub fn with_max_connections(mut self, count: usize) -> Self {
        self.max_connections = count;
        self
    }

    /// Sets how long a client may be connected without asking for anything.
    #[must_use]
    pub fn with_max_silence(mut self, time: Duration) -> Self {
        self.max_silence = time;
        self
    }

    /// Sets how many bytes of messages that have not arrived whole may be in memory.
    #[must_use]
    pub fn with_max_request_memory(mut self, bytes: usize) -> Self {
        self.max_request_memory = bytes;
        self
    }

    /// Sets how long a call may take until it begins to answer.
    #[must_use]
    pub fn with_timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }
}
