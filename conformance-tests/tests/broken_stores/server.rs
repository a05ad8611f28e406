//! A simulated server: stores in memory into which faults can be injected as into a real server.
//! They outlive their handles, so that they can declare themselves durable.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_conformance::{BoxError, Fault, Harness};
use annals_core::{
    Error, ErrorKind, LeaseName, LeaseRecord, Position, RecordedEvent, Snapshot, Store, StreamId,
    Version,
};
use annals_memory::MemoryStore;
use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    bug::Bug,
    racing::{Races, Racing, is_race},
    store::{Handle, capabilities},
};

/// The server of one namespace.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) store: MemoryStore,
    /// How many times all connections were cut.
    pub(crate) cuts: watch::Sender<u64>,
    pub(crate) lose_next_answer: AtomicBool,
    pub(crate) corrupt: AtomicBool,
    newer_schema: AtomicBool,
    /// A lock for the bugs that hold one too long. This and the fields below are state of the bugs,
    /// which a store without a bug does not use, but for `leases` and `waiters`.
    pub(crate) lock: Arc<Semaphore>,
    pub(crate) in_flight: AtomicU64,
    /// The end that the last refusal of a place named.
    pub(crate) refused: AtomicU64,
    /// The version of each stream up to which it was deleted.
    pub(crate) deleted: Mutex<HashMap<StreamId, Version>>,
    pub(crate) snapshots: Mutex<HashMap<StreamId, Snapshot>>,
    pub(crate) tickets: Mutex<HashMap<Position, u64>>,
    pub(crate) removed: AtomicU64,
    pub(crate) generations: Mutex<HashMap<StreamId, u64>>,
    pub(crate) truncated: Mutex<HashMap<StreamId, Version>>,
    /// After which version how many versions of a stream are given once more.
    pub(crate) shifts: Mutex<HashMap<StreamId, Vec<(Version, u64)>>>,
    /// After which position how many positions are given once more.
    pub(crate) reused: Mutex<Vec<(Position, u64)>>,
    /// Events that a removal has left.
    pub(crate) ghosts: Mutex<Vec<RecordedEvent>>,
    pub(crate) closed: Mutex<HashSet<StreamId>>,
    pub(crate) revived: Mutex<HashSet<StreamId>>,
    pub(crate) seen_ids: Mutex<HashSet<uuid::Uuid>>,
    pub(crate) leases: Mutex<HashMap<LeaseName, LeaseRecord>>,
    /// The number of appends, and the number of the handle that made the last one.
    pub(crate) waiters: watch::Sender<(u64, u64)>,
    pub(crate) turn: Notify,
    races: Arc<Races>,
}

impl Server {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            cuts: watch::Sender::new(0),
            lose_next_answer: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            newer_schema: AtomicBool::new(false),
            lock: Arc::new(Semaphore::new(1)),
            in_flight: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            deleted: Mutex::default(),
            snapshots: Mutex::default(),
            tickets: Mutex::default(),
            removed: AtomicU64::new(0),
            generations: Mutex::default(),
            truncated: Mutex::default(),
            shifts: Mutex::default(),
            reused: Mutex::default(),
            ghosts: Mutex::default(),
            closed: Mutex::default(),
            revived: Mutex::default(),
            seen_ids: Mutex::default(),
            leases: Mutex::default(),
            waiters: watch::Sender::new((0, 0)),
            turn: Notify::new(),
            races: Arc::default(),
        }
    }
}

pub(crate) struct Simulated {
    bug: Option<Bug>,
    patience: Duration,
    servers: Mutex<HashMap<String, Arc<Server>>>,
    handles: AtomicU64,
}

impl Simulated {
    pub(crate) fn new(bug: Option<Bug>, patience: Duration) -> Self {
        Self { bug, patience, servers: Mutex::default(), handles: AtomicU64::new(0) }
    }

    fn server(&self, namespace: &str) -> Arc<Server> {
        let namespace = if self.bug == Some(Bug::SharesNamespaces) { "" } else { namespace };
        let mut servers = self.servers.lock().unwrap();
        servers.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Server::new())).clone()
    }
}

#[async_trait]
impl Harness for Simulated {
    fn name(&self) -> &str {
        "simulated"
    }

    async fn open(&self, namespace: &str) -> Result<Arc<dyn Store>, BoxError> {
        if self.bug == Some(Bug::CreatesTwice) {
            let exists = self.servers.lock().unwrap().contains_key(namespace);
            tokio::task::yield_now().await;
            if !exists {
                let created = Arc::new(Server::new());
                self.servers.lock().unwrap().insert(namespace.to_owned(), created);
            }
        }
        let server = self.server(namespace);
        // Besides this one, only the map of servers has it.
        if Arc::strong_count(&server) == 2 {
            server.reopened(self.bug);
        }
        let newer = server.newer_schema.load(Ordering::SeqCst);
        if newer && self.bug != Some(Bug::OpensNewerSchemas) {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "created by a newer version of annals",
            )
            .into());
        }
        let number = self.handles.fetch_add(1, Ordering::SeqCst);
        if let Some(bug) = self.bug.filter(|bug| is_race(*bug)) {
            let (store, races) = (server.store.clone(), server.races.clone());
            return Ok(Arc::new(Racing { store, races, bug, number, own: Arc::default() }));
        }
        let capabilities = capabilities(self.bug);
        let own_end = Arc::default();
        Ok(Arc::new(Handle { server, bug: self.bug, number, capabilities, own_end }))
    }

    async fn clean_up(&self, namespace: &str) -> Result<(), BoxError> {
        self.servers.lock().unwrap().remove(namespace);
        Ok(())
    }

    fn cannot_inject(&self, _fault: Fault) -> Option<String> {
        None
    }

    async fn inject(&self, namespace: &str, fault: Fault) -> Result<(), BoxError> {
        let server = self.server(namespace);
        match fault {
            Fault::CutConnections | Fault::RestartServer => {
                server.cuts.send_modify(|cuts| *cuts += 1);
            }
            Fault::LoseNextAnswer => server.lose_next_answer.store(true, Ordering::SeqCst),
            Fault::CorruptEvent => server.corrupt.store(true, Ordering::SeqCst),
            Fault::NewerSchema => server.newer_schema.store(true, Ordering::SeqCst),
            other => return Err(format!("{other:?} is not simulated").into()),
        }
        Ok(())
    }

    /// Few for a broken store: the whole suite runs on each of a hundred.
    fn random_programs(&self) -> u32 {
        if self.bug.is_some() { 16 } else { 1_000 }
    }

    fn histories(&self) -> u32 {
        2_000
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}
