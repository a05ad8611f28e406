//! The client, made anew when it has given up, and every request that is sent by it.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{Error, ErrorKind, Result};
use futures::FutureExt;
use kurrentdb::{Client, ClientSettings, Credentials};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Endpoint;

use crate::error::Failure;

/// How much longer than the server, which is told the deadline, this side waits for its answer.
const SLACK: Duration = Duration::from_millis(500);

/// The pause before a request is sent again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The connection to a server or a cluster.
pub(crate) struct Connection {
    pub(crate) settings: ClientSettings,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) deadline: Duration,
    retry_for: Duration,
    runtime: Handle,
    slot: Mutex<Slot>,
    /// Counts whatever may have led the client to another node.
    changes: AtomicU64,
}

/// The task of a client ends for good when it cannot connect, or is told of a leader that it cannot
/// reach: whatever is asked of it from then on fails. Another takes its place.
struct Slot {
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
            slot: Mutex::new(Slot { generation: 0, client }),
            changes: AtomicU64::new(0),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is the same before and after two requests that went to the same node.
    pub(crate) fn node(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    fn renew(&self, generation: u64) {
        let mut slot = self.slot();
        // Many may find out at once that the client is of no use.
        if slot.generation == generation {
            match Client::with_runtime_handle(self.runtime.clone(), self.settings.clone()) {
                Ok(client) => *slot = Slot { generation: generation + 1, client },
                Err(error) => tracing::warn!(%error, "no new client can be made"),
            }
        }
    }

    /// Sends a request once.
    pub(crate) async fn once<T, F, Fut>(&self, request: F) -> Result<T, Failure>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = kurrentdb::Result<T>>,
    {
        let (generation, client) = {
            let slot = self.slot();
            (slot.generation, slot.client.clone())
        };
        let answer = self.watched(request(client)).await;
        if let Err(failure) = &answer {
            self.failed(failure, generation);
        }
        answer
    }

    /// Waits for something of the client no longer than for an answer, and survives its panics.
    pub(crate) async fn watched<T>(
        &self,
        future: impl Future<Output = kurrentdb::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(self.deadline + SLACK, AssertUnwindSafe(future).catch_unwind()).await {
            Err(_) => Err(Failure::Timeout),
            Ok(Err(_)) => Err(Failure::Panic),
            Ok(Ok(answer)) => answer.map_err(Failure::Client),
        }
    }

    /// Takes note of a failure of the client of this generation.
    fn failed(&self, failure: &Failure, generation: u64) {
        if failure.may_change_node() {
            self.changes.fetch_add(1, SeqCst);
        }
        if failure.ends_client() {
            self.renew(generation);
        }
    }

    /// Takes note of a failure in the middle of an answer.
    pub(crate) fn broke_off(&self, failure: &Failure) {
        let generation = self.slot().generation;
        self.failed(failure, generation);
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { until: Instant::now() + self.retry_for, pause: PAUSE.0 }
    }
}

/// How long something is tried again.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Waits for others to get out of the way. However many there are, one of them always does.
    pub(crate) async fn lost_race(&mut self) {
        sleep(PAUSE.0.mul_f64(fastrand::f64())).await;
    }

    /// Waits a little, and says whether to try again: not where the time is over.
    pub(crate) async fn again(&mut self, because: &(dyn fmt::Display + Sync)) -> bool {
        // Many who wait for the same do not all come back at once.
        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
        if Instant::now() + pause >= self.until {
            return false;
        }
        tracing::debug!(%because, "trying again");
        sleep(pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        true
    }
}

/// Makes a client. What it would panic over is refused.
pub(crate) fn client(settings: &ClientSettings) -> Result<Client> {
    for host in settings.hosts() {
        let uri = format!("http://{}:{}", host.host, host.port);
        Endpoint::from_shared(uri).map_err(|e| {
            let message = format!("{:?} with port {} is no host", host.host, host.port);
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?;
    }
    if let Some(file) = settings.tls_ca_file() {
        check_certificates(Path::new(file))?;
    }
    Client::new(settings.clone()).map_err(|e| {
        let message = "no client can be made of these settings; look at the files of certificates";
        Error::new(ErrorKind::InvalidInput, message).with_source(e.to_string())
    })
}

fn check_certificates(file: &Path) -> Result<()> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<std::result::Result<Vec<_>, _>>();
    let message = || format!("`tlsCAFile` {} is no file of certificates", file.display());
    match read() {
        Ok(found) if !found.is_empty() => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::InvalidInput, message())),
        Err(e) => Err(Error::new(ErrorKind::InvalidInput, message()).with_source(e.to_string())),
    }
}

/// The options of a request, which say who sends it.
pub(crate) trait Identified: Sized {
    fn sent_by(self, credentials: Credentials) -> Self;
    fn within(self, deadline: Duration) -> Self;
}

macro_rules! identified {
    ($($options:ident),+) => {$(
        impl Identified for kurrentdb::$options {
            fn sent_by(self, credentials: Credentials) -> Self {
                self.authenticated(credentials)
            }

            fn within(self, deadline: Duration) -> Self {
                self.deadline(deadline)
            }
        }
    )+};
}

identified! {
    AppendToStreamOptions, DeleteStreamOptions, ReadAllOptions, ReadStreamOptions,
    TombstoneStreamOptions
}

impl Connection {
    /// Adds who sends a request.
    pub(crate) fn identify<T: Identified>(&self, options: T) -> T {
        match &self.credentials {
            Some(credentials) => options.sent_by(credentials.clone()),
            None => options,
        }
    }

    /// Adds who sends a request, and how long its answer may take.
    pub(crate) fn identify_briefly<T: Identified>(&self, options: T) -> T {
        self.identify(options).within(self.deadline)
    }
}
