//! The options of a store, and the client that a URL describes.

use std::time::Duration;

use annals_core::{Error, ErrorKind, Result};
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::{Client, config::SharedHttpClient};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder,
    tls::{Provider, rustls_provider::CryptoMode},
};

/// The options of a store, whoever makes its client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbOptions {
    /// Whether the store has an order over all streams: positions, reads of all streams,
    /// subscriptions to more than one stream. Without an order an append costs a fifth. The choice
    /// is made when the table is first opened, by default for an order, and cannot be changed: a
    /// store with another choice is refused.
    pub order: Option<bool>,
    /// Over how many partitions the log spreads that keeps the order: 1 to 64. The number is set
    /// when the table is first opened, by default to 8, and cannot be changed: a store with another
    /// number is refused. A stripe takes 1,000 write units a second, which is 500 appends that have
    /// a slot each or about 1,500 small appends that share slots; and it costs a reader of all
    /// streams one query more. With any number of stripes, a table gives out 1,000 slots a second.
    pub stripes: Option<u64>,
    /// Whether to create a missing table, with on-demand billing. On by default.
    pub create: bool,
    /// Whether a created table has point-in-time recovery. Off by default.
    pub point_in_time_recovery: bool,
    /// Whether a created table is protected from deletion. Off by default.
    pub deletion_protection: bool,
    /// The most transactions of appends that run at the same time: 1 to 64, by default 4. Appends
    /// that wait share a transaction and its cost; the more transactions run, the fewer appends
    /// share one. Without an order each append is a request of its own.
    pub writers: usize,
    /// How long a snapshot is kept, in whole seconds. By default snapshots do not expire. The table
    /// must have time to live on the attribute `expires`, as a table has that is created with this
    /// option.
    pub snapshot_ttl: Option<Duration>,
    /// The longest time between two polls for appends of other processes: 250 ms by default. Polls
    /// follow each other sooner while they find something. The subscribers of one store share a
    /// poll, which costs half a read unit; each subscriber to one stream polls for itself.
    pub poll_interval: Duration,
    /// How long a slot of the log may stay empty after a later one is written, until a reader
    /// closes it: 500 ms by default. Its writer, if it is alive, then takes a later slot. A shorter
    /// time lets readers wait less after the death of a writer, and makes slow writers write twice.
    pub close_after: Duration,
    /// How long to wait for the answer to a request before it is sent again: 5 seconds by default.
    pub request_timeout: Duration,
    /// For how long a request is sent again after throttling, conflicts with other transactions,
    /// and failures of the service or the network: 15 seconds by default.
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
            writers: 4,
            snapshot_ttl: None,
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

    /// Sets whether the store has an order over all streams.
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

    /// Sets whether to create a missing table.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets whether a created table has point-in-time recovery.
    #[must_use]
    pub fn with_point_in_time_recovery(mut self, on: bool) -> Self {
        self.point_in_time_recovery = on;
        self
    }

    /// Sets whether a created table is protected from deletion.
    #[must_use]
    pub fn with_deletion_protection(mut self, on: bool) -> Self {
        self.deletion_protection = on;
        self
    }

    /// Sets the most transactions that run at the same time.
    #[must_use]
    pub fn with_writers(mut self, writers: usize) -> Self {
        self.writers = writers;
        self
    }

    /// Sets how long a snapshot is kept.
    #[must_use]
    pub fn with_snapshot_ttl(mut self, ttl: Duration) -> Self {
        self.snapshot_ttl = Some(ttl);
        self
    }

    /// Sets the longest time between two polls.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long a slot may stay empty.
    #[must_use]
    pub fn with_close_after(mut self, time: Duration) -> Self {
        self.close_after = time;
        self
    }

    /// Sets how long to wait for the answer to a request.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets for how long a request is sent again.
    #[must_use]
    pub fn with_retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Refuses options that cannot work.
    pub(crate) fn check(&self, table: &str) -> Result<()> {
        check_table(table)?;
        let range = |name: &str, value: u64, most: u64| match value {
            value if (1..=most).contains(&value) => Ok(()),
            _ => invalid(format!("`{name}` is {value}; use a number from 1 to {most}")),
        };
        range("writers", self.writers as u64, Self::MAX_WRITERS as u64)?;
        range("stripes", self.stripes.unwrap_or(1), Self::MAX_STRIPES)?;
        if self.order == Some(false) && self.stripes.is_some() {
            return invalid(
                "`stripes` is for the log, and without `order` there is none; leave `stripes` out"
                    .into(),
            );
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

/// Refuses a name that DynamoDB does not take for a table.
fn check_table(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (3..=255).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    // Do not quote the text: it may be a secret in the wrong place.
    let message =
        "the name of the table is invalid; use 3 to 255 letters, digits, `_`, `-` and `.`";
    invalid(message.to_owned())
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// How to open a store that makes a client of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbConfig {
    /// The name of the table.
    pub table: String,
    /// The region. By default that of the SDK's default chain: `AWS_REGION`, the profile, the
    /// machine.
    pub region: Option<String>,
    /// The URL of the service. By default that of the region. An endpoint on this machine that is
    /// plain HTTP is taken for a server for tests: if the environment has no credentials or no
    /// region, the client uses made-up ones.
    pub endpoint: Option<String>,
    /// The profile of `~/.aws/config`. By default that of `AWS_PROFILE`.
    pub profile: Option<String>,
    /// The options of the store.
    pub options: DynamoDbOptions,
}

impl DynamoDbConfig {
    /// The configuration of a store in this table, with the default options.
    pub fn new(table: impl Into<String>) -> Self {
        let options = DynamoDbOptions::default();
        Self { table: table.into(), region: None, endpoint: None, profile: None, options }
    }

    /// Sets the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the URL of the service.
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

    /// Sets the options of the store.
    #[must_use]
    pub fn with_options(mut self, options: DynamoDbOptions) -> Self {
        self.options = options;
        self
    }

    /// Whether the endpoint is taken for a server for tests.
    fn is_local(&self) -> bool {
        let endpoint = self.endpoint.as_deref().and_then(|text| url::Url::parse(text).ok());
        endpoint.is_some_and(|url| {
            let host = url.host_str().unwrap_or_default();
            url.scheme() == "http"
                && matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "host.docker.internal")
        })
    }

    /// A client like that of a store with this configuration, for requests that a store does not
    /// send: to delete its table, or to read metrics.
    pub async fn client(&self) -> Client {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
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
            // A server for tests wants credentials, but does not check them.
            let any = Credentials::new("annals", "annals", None, None, "a server for tests");
            loader = loader.credentials_provider(any);
        }
        Client::new(&loader.load().await)
    }
}

/// An HTTP client that speaks TLS by `ring`, as the other stores do. The client that the SDK would
/// make by itself brings a second library of cryptography, written in C.
pub(crate) fn http_client() -> SharedHttpClient {
    HttpClientBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
