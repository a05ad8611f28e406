//! The server, or cluster, of one store: how to reach it, and what the store's streams are called
//! there. All files that send requests share it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use annals_core::{
    Capabilities, ExpectedVersion, NewEvent, Position, Recognition, Removal, Result, Version,
};
use uuid::Uuid;

use crate::{
    config::EventStoreDbOptions,
    connection::{Connection, Target},
    error::Failure,
    message::{AppendAnswer, EventData},
    names::Names,
    rpc::{ReadFrom, ReadRequest, ReadSource},
    settings::Settings,
};

/// The name of this backend.
pub(crate) const BACKEND: &str = "eventstoredb";

/// What every store of this crate can do.
pub(crate) static CAPABILITIES: Capabilities = {
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    capabilities.multi_stream_append = false;
    capabilities.retry_recognition = Recognition::BestEffort;
    capabilities.tells_retries = false;
    capabilities.removal = Removal::AfterCleanUp;
    // By default the server accepts 1 MiB for a whole append. Some versions count event types, too.
    capabilities.max_event_bytes = 1_000_000;
    capabilities.max_append_bytes = 1_000_000;
    capabilities
};

/// Lives until the last handle of the store, read and subscription is dropped.
pub(crate) struct Server {
    pub(crate) connection: Connection,
    pub(crate) names: Names,
    pub(crate) options: EventStoreDbOptions,
    /// The greatest position that the server has given to this store.
    seen: AtomicU64,
    /// The versions of events whose ids the server knew before, by the stream's name there.
    repeated: Mutex<HashMap<(String, Uuid), Version>>,
}

/// How many of them are remembered.
const REPEATED: usize = 10_000;

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("connection", &self.connection)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn new(settings: Settings, options: EventStoreDbOptions) -> Self {
        let EventStoreDbOptions { deadline, retry_for, .. } = options;
        let connection = Connection::new(settings, deadline, retry_for);
        let names = Names::new(options.namespace.as_deref());
        Self { connection, names, options, seen: AtomicU64::new(0), repeated: Mutex::default() }
    }

    /// Fails if the server does not answer, or refuses the store's credentials.
    pub(crate) async fn check_access(&self) -> Result<()> {
        let request = ReadRequest {
            // The stream need not exist.
            source: ReadSource::Stream(format!("{}annals.open", self.names.prefix())),
            from: ReadFrom::Start,
            backwards: false,
            count: Some(1),
            window: 1,
        };
        let read = async {
            let mut messages = self.connection.read(Target::Leader, &request).await?;
            self.connection.within_deadline(messages.next()).await
        };
        match read.await {
            Err(failure) if !failure.is_deleted("") => Err(failure.into_error()),
            _ => Ok(()),
        }
    }

    /// The server's version, if the server tells it.
    pub(crate) async fn version(&self) -> Result<Option<String>> {
        self.connection.version().await.map_err(Failure::into_error)
    }

    /// Replaces a record, or writes metadata. False if the stream is not as expected.
    pub(crate) async fn replace(
        &self,
        name: &str,
        expected: ExpectedVersion,
        event: EventData,
    ) -> Result<bool, Failure> {
        match self.connection.append(name, expected, &[event]).await? {
            AppendAnswer::Written { .. } => Ok(true),
            AppendAnswer::WrongVersion(_) => Ok(false),
        }
    }

    /// The greatest position that the server has given to this store.
    pub(crate) fn seen(&self) -> Position {
        Position::new(self.seen.load(SeqCst))
    }

    /// Notes that events were written whose ids the server knew before.
    pub(crate) fn note_repeated(&self, name: &str, base: Version, events: &[NewEvent]) {
        let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        if repeated.len() > REPEATED {
            repeated.clear();
        }
        for (event, number) in events.iter().zip(1..) {
            repeated.insert((name.to_owned(), event.id()), base.plus(number));
        }
    }

    /// True if an id of these events, which stand after this version, was written again elsewhere.
    pub(crate) fn stands_elsewhere(&self, name: &str, base: Version, events: &[NewEvent]) -> bool {
        let repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        !repeated.is_empty()
            && events.iter().zip(1..).any(|(event, number)| {
                let last = repeated.get(&(name.to_owned(), event.id()));
                last.is_some_and(|last| *last != base.plus(number))
            })
    }

    pub(crate) fn note_seen(&self, position: Position) {
        self.seen.fetch_max(position.get(), SeqCst);
    }
}
