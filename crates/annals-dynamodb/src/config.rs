//! The options of a store.

use std::time::Duration;

use annals_core::{Error, ErrorKind, Result};
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::Client;

/// What a store is like, whoever makes its client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbOptions {
    /// Whether there is an order over all streams: positions, reading all, subscriptions to more
    /// than one stream. Without it an append costs a fifth. It is chosen when the table is first
    /// opened, then (unless set) on, and asked for later it must be the same.
    pub order: Option<bool>,
    /// Over how many partitions the log spreads that keeps the order, 1 to 64: when the table is
    /// first opened 8 (unless set), and asked for later it must be the same. Each takes 1,000 write
    /// units a second, which is 500 appends that are alone or about 1,500 small ones that share
    /// slots, and is one query more for those who read over all streams. A table gives out 1,000
    /// slots a second in any case.
    pub stripes: Option<u64>,
    /// Whether a table that is missing is created, with on-demand billing: yes, unless set.
    pub create: bool,
    /// Whether a table that is created has point-in-time recovery: no, unless set.
    pub point_in_time_recovery: bool,
    /// Whether a table that is created is protected from deletion: no, unless set.
    pub deletion_protection: bool,
    /// How long a snapshot is kept, in whole seconds: for ever, unless set. The table must have
    /// time to live on the attribute `expires`; one that is created has it.
    pub snapshot_ttl: Option<Duration>,
    /// The most transactions of appends under way at the same time, 1 to 64: 4 unless set. Appends
    /// that wait share one, and so its cost; more transactions share less. Without an order each
    /// append is alone.
    pub writers: usize,
    /// How often, at least, a subscriber looks for what other processes have appended: every 250 ms
    /// unless set. It looks more often while there is something. Those of one store share a look,
    /// of half a read unit, except subscribers to one stream, who look for themselves.
    pub poll_interval: Duration,
    /// How long a position may stay empty that a writer has taken and a later one has passed, until
    /// a reader closes it: 500 ms unless set. The writer, if it lives, takes another then. Less
    /// makes readers wait less after the death of a writer, and slow writers write twice.
    pub close_after: Duration,
    /// How long to wait for the answer to one request, before it is tried again: 5 seconds unless
    /// set.
    pub request_timeout: Duration,
    /// For how long a request is tried again after throttling, conflicts with other transactions,
    /// failures of the service or of the network, before the call fails: 15 seconds unless set.
    pub retry_for: Duration,
}

impl Default for DynamoDbOptions {
    fn default() -> Self {
        Self {
            order: None,
            stripes: None,
            create: true,
            point_in_time_recovery: false,
            deletion_protection: false,
            snapshot_ttl: None,
            writers: 4,
            poll_interval: Duration::from_millis(250),
            close_after: Duration::from_millis(500),
            request_timeout: Duration::from_secs(5),
            retry_for: Duration::from_secs(15),
        }
    }
}

impl DynamoDbOptions {
    /// The greatest number of stripes.
    pub const MAX_STRIPES: u64 = 64;
    /// The greatest number of writers.
    pub const MAX_WRITERS: usize = 64;

    /// Sets whether there is an order over all streams.
    #[must_use]
    pub fn with_order(mut self, order: bool) -> Self {
        self.order = Some(order);
        self
    }

    /// Sets over how many partitions the log spreads.
    #[must_use]
    pub fn with_stripes(mut self, stripes: u64) -> Self {
        self.stripes = Some(stripes);
        self
    }

    /// Sets whether a table that is missing is created.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets whether a table that is created has point-in-time recovery.
    #[must_use]
    pub fn with_point_in_time_recovery(mut self, on: bool) -> Self {
        self.point_in_time_recovery = on;
        self
    }

    /// Sets whether a table that is created is protected from deletion.
    #[must_use]
    pub fn with_deletion_protection(mut self, on: bool) -> Self {
        self.deletion_protection = on;
        self
    }

    /// Sets how long a snapshot is kept.
    #[must_use]
    pub fn with_snapshot_ttl(mut self, ttl: Duration) -> Self {
        self.snapshot_ttl = Some(ttl);
        self
    }

    /// Sets the most transactions under way at the same time.
    #[must_use]
    pub fn with_writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how often a subscriber looks at least.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long a position may stay empty.
    #[must_use]
    pub fn with_close_after(mut self, time: Duration) -> Self {
        self.close_after = time;
        self
    }

    /// Sets how long to wait for one answer.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets for how long a request is tried again.
    #[must_use]
    pub fn with_retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Refuses what could not work.
    pub(crate) fn check(&self, table: &str) -> Result<()> {
        check_table(table)?;
        let range = |name: &str, value: u64, most: u64| match value {
            value if (1..=most).contains(&value) => Ok(()),
            _ => invalid(format!("`{name}` is {value}; use a number from 1 to {most}")),
        };
        range("writers", self.writers as u64, Self::MAX_WRITERS as u64)?;
        range("stripes", self.stripes.unwrap_or(1), Self::MAX_STRIPES)?;
        if self.order == Some(false) && self.stripes.is_some() {
            return invalid("`stripes` are those of the log; without `order` there is none".into());
        }
        let seconds = self.snapshot_ttl.map(|ttl| ttl.as_secs());
        if seconds == Some(0) {
            return invalid("`snapshot_ttl` is less than a second; use one or more".to_owned());
        }
        let times = [
            ("poll_interval", self.poll_interval),
            ("close_after", self.close_after),
            ("request_timeout", self.request_timeout),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return invalid(format!("`{name}` is 0; use 1 millisecond or more"));
        }
        Ok(())
    }
}

/// What DynamoDB takes as the name of a table.
fn check_table(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (3..=255).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    // What is no name may be a secret at the wrong place.
    invalid("that is no name of a table; use 3 to 255 letters, digits, `_`, `-` and `.`".to_owned())
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// How a store is opened with a client of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbConfig {
    /// The name of the table.
    pub table: String,
    /// The region; unless set, that of the SDK's default chain: `AWS_REGION`, the profile, the
    /// machine.
    pub region: Option<String>,
    /// Where the service is; unless set, that of the region. An endpoint on this machine that is
    /// plain HTTP is taken for a server for tests: where the environment has no credentials and no
    /// region for it, it gets some.
    pub endpoint: Option<String>,
    /// The profile of `~/.aws/config`; unless set, that of `AWS_PROFILE`.
    pub profile: Option<String>,
    /// What the store is like.
    pub options: DynamoDbOptions,
}

impl DynamoDbConfig {
    /// A store in this table.
    pub fn new(table: impl Into<String>) -> Self {
        let options = DynamoDbOptions::default();
        Self { table: table.into(), region: None, endpoint: None, profile: None, options }
    }

    /// Reads a URL: `dynamodb://table`, with any of the parameters `region`, `endpoint`, `profile`,
    /// `order` (`on` or `off`), `stripes`, `create`, `point_in_time_recovery`,
    /// `deletion_protection` (`true` or `false`), `writers`, in seconds `snapshot_ttl`, and in
    /// milliseconds `poll_interval`, `close_after`, `request_timeout` and `retry_for`.
    ///
    /// Credentials are found by the SDK's default chain; a URL has none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the part that is wrong, and what it could be.
    pub fn from_url(url: &str) -> Result<Self> {
        crate::url::parse(url)
    }

    /// Sets the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets where the service is.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Sets the profile.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Sets what the store is like.
    #[must_use]
    pub fn with_options(mut self, options: DynamoDbOptions) -> Self {
        self.options = options;
        self
    }

    /// Whether the endpoint is a server for tests.
    fn is_local(&self) -> bool {
        let endpoint = self.endpoint.as_deref().and_then(|text| url::Url::parse(text).ok());
        endpoint.is_some_and(|url| {
            let host = url.host_str().unwrap_or_default();
            url.scheme() == "http"
                && matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "host.docker.internal")
        })
    }

    /// The client that a store opened with this has, for what a store does not do: to delete its
    /// table, to read what the service measures.
    pub async fn client(&self) -> Client {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let region = match &self.region {
            None if self.is_local() && !has("AWS_REGION") => Some("us-east-1".to_owned()),
            region => region.clone(),
        };
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        } else if self.is_local() && !has("AWS_ACCESS_KEY_ID") && !has("AWS_PROFILE") {
            // Such a server wants some, and looks at none.
            let any = Credentials::new("annals", "annals", None, None, "a server for tests");
            loader = loader.credentials_provider(any);
        }
        Client::new(&loader.load().await)
    }
}
