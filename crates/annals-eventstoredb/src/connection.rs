//! Sends requests through the client, and replaces the client when it has given up.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::adapter::Backoff;
use futures::FutureExt;
use kurrentdb::{Client, ClientSettings, Credentials};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use crate::error::Failure;

/// The server is told the deadline of each request. This side waits a little longer for the answer,
/// so that an answer that was sent just in time still arrives.
const SLACK: Duration = Duration::from_millis(500);

/// The first and the longest pause before a request is sent again.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The longest pause after another writer came first.
const LOST_RACE: Duration = Duration::from_millis(10);

/// The connection to a server or a cluster.
pub(crate) struct Connection {
    settings: ClientSettings,
    credentials: Option<Credentials>,
    deadline: Duration,
    retry_for: Duration,
    runtime: Handle,
    current: Mutex<CurrentClient>,
    /// Counts the failures after which the client may talk to another node.
    node_changes: AtomicU64,
}

/// The client in use. A client's background task ends for good when the client cannot connect, or
/// cannot reach the leader that it is told of; every later request through that client fails. So
/// the connection replaces it with a new client, of the next generation.
struct CurrentClient {
    generation: u64,
    client: Client,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("hosts", self.settings.hosts()).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(
        client: Client,
        credentials: Option<Credentials>,
        deadline: Duration,
        retry_for: Duration,
    ) -> Self {
        Self {
            settings: client.settings().clone(),
            credentials,
            deadline,
            retry_for,
            runtime: Handle::current(),
            current: Mutex::new(CurrentClient { generation: 0, client }),
            node_changes: AtomicU64::new(0),
        }
    }

    fn current(&self) -> MutexGuard<'_, CurrentClient> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the client may have changed to another node. Two requests went to the same node if
    /// this number is the same before the first and after the second.
    pub(crate) fn node_changes(&self) -> u64 {
        self.node_changes.load(SeqCst)
    }

    /// Replaces the client of this generation.
    fn replace_client(&self, generation: u64) {
        let mut current = self.current();
        // Many requests may fail at once, and one of them has replaced the client already.
        if current.generation == generation {
            match Client::with_runtime_handle(self.runtime.clone(), self.settings.clone()) {
                Ok(client) => *current = CurrentClient { generation: generation + 1, client },
                Err(error) => tracing::warn!(%error, "a new client cannot be created"),
            }
        }
    }

    /// Sends a request once, without retries.
    pub(crate) async fn send<T, F, Fut>(&self, request: F) -> Result<T, Failure>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = kurrentdb::Result<T>>,
    {
        let (generation, client) = {
            let current = self.current();
            (current.generation, current.client.clone())
        };
        let answer = self.within_deadline(request(client)).await;
        if let Err(failure) = &answer {
            self.note_failure(failure, generation);
        }
        answer
    }

    /// Waits for a future of the client until the deadline, and turns its panic into a failure.
    pub(crate) async fn within_deadline<T>(
        &self,
        future: impl Future<Output = kurrentdb::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(self.deadline + SLACK, AssertUnwindSafe(future).catch_unwind()).await {
            Err(_) => Err(Failure::Timeout),
            Ok(Err(_)) => Err(Failure::Panic),
            Ok(Ok(answer)) => answer.map_err(Failure::Client),
        }
    }

    /// Notes a failure of the client of this generation, and replaces the client if it has to be.
    fn note_failure(&self, failure: &Failure, generation: u64) {
        if failure.may_change_node() {
            self.node_changes.fetch_add(1, SeqCst);
        }
        if failure.ends_client() {
            self.replace_client(generation);
        }
    }

    /// Notes a failure in the middle of an answer.
    pub(crate) fn answer_failed(&self, failure: &Failure) {
        let generation = self.current().generation;
        self.note_failure(failure, generation);
    }

    pub(crate) fn retries(&self) -> Retries {
        Retries { until: Instant::now() + self.retry_for, backoff: Backoff::new(RETRY.0, RETRY.1) }
    }
}

/// The retries of one call: pauses that grow, until `retry_for` is over.
#[derive(Debug)]
pub(crate) struct Retries {
    until: Instant,
    backoff: Backoff,
}

impl Retries {
    /// Waits a moment after another writer came first. This has no limit: of any number of writers
    /// that compete, one succeeds each time.
    pub(crate) async fn pause_after_lost_race(&mut self) {
        sleep(LOST_RACE.mul_f64(fastrand::f64())).await;
    }

    /// Waits before the next try. False, at once, if the time for retries is over.
    pub(crate) async fn pause_after(&mut self, failure: &Failure) -> bool {
        let pause = self.backoff.next_pause();
        if Instant::now() + pause >= self.until {
            return false;
        }
        tracing::debug!(%failure, "a request is tried again");
        sleep(pause).await;
        true
    }
}

/// What the options of all requests have in common. The client has no trait for it.
pub(crate) trait RequestOptions: Sized {
    fn with_credentials(self, credentials: Credentials) -> Self;
    fn with_deadline(self, deadline: Duration) -> Self;
}

macro_rules! request_options {
    ($($options:ident),+) => {$(
        impl RequestOptions for kurrentdb::$options {
            fn with_credentials(self, credentials: Credentials) -> Self {
                self.authenticated(credentials)
            }

            fn with_deadline(self, deadline: Duration) -> Self {
                self.deadline(deadline)
            }
        }
    )+};
}

request_options! {
    AppendToStreamOptions, DeleteStreamOptions, ReadAllOptions, ReadStreamOptions,
    TombstoneStreamOptions
}

impl Connection {
    /// Adds the store's credentials to a request.
    pub(crate) fn authenticated<T: RequestOptions>(&self, options: T) -> T {
        match &self.credentials {
            Some(credentials) => options.with_credentials(credentials.clone()),
            None => options,
        }
    }

    /// Adds the store's credentials to a request, and the time that the whole answer may take.
    pub(crate) fn authenticated_with_deadline<T: RequestOptions>(&self, options: T) -> T {
        self.authenticated(options).with_deadline(self.deadline)
    }
}
