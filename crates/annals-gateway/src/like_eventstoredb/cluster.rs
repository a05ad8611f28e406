//! A cluster of one or more nodes that share a log: which node is the leader, how far followers are
//! behind, and which node fails in which way.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, metadata::MetadataValue, service::Routes, transport::Server,
};
use uuid::Uuid;

use super::{
    http_500::Http500Layer,
    log::{Log, View},
};
use crate::{
    call_layer::CallLayer,
    proto::{
        gossip::{
            ClusterInfo, EndPoint, MemberInfo,
            gossip_server::{Gossip, GossipServer},
            member_info::VNodeState,
        },
        server_features::{
            SupportedMethod, SupportedMethods,
            server_features_server::{ServerFeatures, ServerFeaturesServer},
        },
        shared::Empty,
        streams::streams_server::StreamsServer,
    },
    request_memory::RequestMemory,
    status::insert_trailer,
    wire::IdFormat,
};

/// The calls that may be open on one connection.
const CALLS_PER_CONNECTION: u32 = 100;
/// How long a call may take until it begins to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than tests send.
const MEMORY: usize = 1024 * 1024 * 1024;
const MAX_MESSAGE_BYTES: usize = 17 * 1024 * 1024;

/// How a node fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// It answers every call with "Server Is Not Ready".
    NotReady,
    /// It answers every call with "Server Is Too Busy".
    TooBusy,
    /// Its users may not write.
    ReadOnly,
    /// It takes long to look at many events.
    Slow,
    /// It ends appends with a timeout, and has not written them.
    TimeoutUnwritten,
    /// It ends appends with a timeout, and has written them.
    TimeoutWritten,
}

/// What a node says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes appends.
    Leader,
    /// It has what the leader has, or less.
    Follower,
}

/// One or more nodes that share a log.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Changes with each record, and with each change of the nodes.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    log: Log,
    leader: Option<usize>,
    nodes: Vec<NodeState>,
    /// The calls that were received.
    calls: u64,
    /// Told when an append was written whose answer is not to be sent.
    losing: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct NodeState {
    id: Uuid,
    address: (String, u16),
    alive: bool,
    fault: Fault,
    /// The records that the node has, if it is held back.
    held_at: Option<usize>,
}

impl Cluster {
    /// A cluster of so many nodes. The first one is the leader.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let node = |_| NodeState {
            id: Uuid::now_v7(),
            address: (String::new(), 0),
            alive: true,
            fault: Fault::None,
            held_at: None,
        };
        let nodes = (0..nodes).map(node).collect();
        let state = State { log: Log::default(), leader: Some(0), nodes, calls: 0, losing: None };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0) }))
    }

    /// One of the nodes.
    #[must_use]
    pub fn node(&self, index: usize) -> Node {
        Node { cluster: self.clone(), index }
    }

    /// Where clients find a node.
    pub fn set_address(&self, index: usize, host: &str, port: u16) {
        self.change(index, |node| node.address = (host.to_owned(), port));
    }

    /// Makes a node the leader, or leaves the cluster without one.
    pub fn elect(&self, leader: Option<usize>) {
        self.state().leader = leader;
        self.notify();
    }

    /// The leader.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.state().leader
    }

    /// Whether the other nodes say that a node is alive.
    pub fn set_alive(&self, index: usize, alive: bool) {
        self.change(index, |node| node.alive = alive);
    }

    /// Makes a node fail.
    pub fn set_fault(&self, index: usize, fault: Fault) {
        self.change(index, |node| node.fault = fault);
    }

    /// Keeps a node from getting more records, or lets it have them again.
    pub fn hold(&self, index: usize, held: bool) {
        let mut state = self.state();
        let length = state.log.records.len();
        if let Some(node) = state.nodes.get_mut(index) {
            node.held_at = held.then_some(length);
        }
        drop(state);
        self.notify();
    }

    /// Writes the next append and sends no answer. The receiver is told when it is written, so that the
    /// test can cut the connection.
    #[must_use]
    pub fn lose_next_answer(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.state().losing = Some(sender);
        receiver
    }

    /// Writes so many small events to a stream, without a client.
    pub fn fill(&self, stream: &str, events: usize) {
        for _ in 0..events {
            self.state().log.fill(stream);
        }
        self.notify();
    }

    /// How many calls the nodes received.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many records the log has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.state().log.records.len()
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut NodeState)) {
        if let Some(node) = self.state().nodes.get_mut(index) {
            change(node);
        }
        self.notify();
    }

    fn notify(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    cluster: Cluster,
    index: usize,
}

impl Node {
    /// Serves clients until the future is dropped.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        let has_address = self.with(|node, _, _| node.address.1 != 0);
        if !has_address {
            self.cluster.set_address(self.index, &address.ip().to_string(), address.port());
        }
        let mut routes = Routes::builder();
        let streams = StreamsServer::new(self.clone());
        routes
            .add_service(streams.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(ServerFeaturesServer::new(self.clone()))
            .add_service(GossipServer::new(self));
        Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .layer(Http500Layer)
            .layer(CallLayer { timeout: TIMEOUT, memory: RequestMemory::new(MEMORY) })
            .add_routes(routes.routes())
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .map_err(io::Error::other)
    }

    fn with<T>(&self, look: impl FnOnce(&NodeState, Option<usize>, &Log) -> T) -> T {
        let state = self.cluster.state();
        let gone = NodeState {
            id: Uuid::nil(),
            address: (String::new(), 0),
            alive: false,
            fault: Fault::NotReady,
            held_at: None,
        };
        look(state.nodes.get(self.index).unwrap_or(&gone), state.leader, &state.log)
    }

    /// Looks at what the node has of the log.
    pub(super) fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        self.with(|node, leader, log| {
            // A leader has everything.
            let held_at = node.held_at.filter(|_| leader != Some(self.index));
            look(log.view_until(held_at.unwrap_or(usize::MAX)))
        })
    }

    /// Changes the log, as the leader does.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Log) -> T) -> T {
        let written = write(&mut self.cluster.state().log);
        self.cluster.notify();
        written
    }

    /// Waits for ever if the answer to this append is to be lost.
    pub(super) async fn answer_append(&self) {
        let losing = self.cluster.state().losing.take();
        if let Some(losing) = losing {
            // The test may have stopped waiting.
            let _ = losing.send(());
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn fault(&self) -> Fault {
        self.with(|node, _, _| node.fault)
    }

    /// Fires when the log or the nodes change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.cluster.0.changed.subscribe()
    }

    /// What this node says that it is.
    #[must_use]
    pub fn role(&self) -> Role {
        let is_leader = self.with(|_, leader, _| leader == Some(self.index));
        if is_leader { Role::Leader } else { Role::Follower }
    }

    /// Refuses an append of a batch that this node cannot serve.
    pub(super) fn admit_append(&self) -> Result<(), Status> {
        let mut request = Request::new(());
        let required = MetadataValue::from_static("true");
        request.metadata_mut().insert("requires-leader", required);
        self.admit(&request, true)
    }

    /// Refuses a call that this node cannot serve. `write` is true for calls that change something.
    pub(super) fn admit<T>(&self, request: &Request<T>, write: bool) -> Result<(), Status> {
        self.cluster.state().calls += 1;
        match self.fault() {
            Fault::NotReady => return Err(Status::unavailable("Server Is Not Ready")),
            Fault::TooBusy => return Err(Status::unavailable("Server Is Too Busy")),
            Fault::ReadOnly if write => {
                let mut status = Status::permission_denied("Access Denied");
                insert_trailer(status.metadata_mut(), "exception", "access-denied");
                return Err(status);
            }
            _ => {}
        }
        let for_leader = request
            .metadata()
            .get("requires-leader")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        if self.role() == Role::Leader || !(for_leader || write) {
            return Ok(());
        }
        let state = self.cluster.state();
        let Some(leader) = state.leader.and_then(|leader| state.nodes.get(leader)) else {
            return Err(Status::unknown("No leader info available in response"));
        };
        if !for_leader {
            // It passes the append on to the leader.
            return Ok(());
        }
        let (host, port) = &leader.address;
        let mut status = Status::not_found("Leader info available");
        let trailers = status.metadata_mut();
        insert_trailer(trailers, "exception", "not-leader");
        insert_trailer(trailers, "leader-endpoint-host", host);
        insert_trailer(trailers, "leader-endpoint-port", &port.to_string());
        Err(status)
    }
}

#[tonic::async_trait]
impl Gossip for Node {
    async fn read(&self, _: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.cluster.state();
        state.calls += 1;
        let state = &*state;
        let member = |(index, node): (usize, &NodeState)| {
            let is_leader = state.leader == Some(index);
            MemberInfo {
                instance_id: Some(IdFormat::Structured.write(node.id)),
                time_stamp: i64::try_from(now.as_nanos() / 100).unwrap_or_default(),
                state: if is_leader { VNodeState::Leader } else { VNodeState::Follower }.into(),
                is_alive: node.alive,
                http_end_point: Some(EndPoint {
                    address: node.address.0.clone(),
                    port: node.address.1.into(),
                }),
            }
        };
        let members = state.nodes.iter().enumerate().map(member).collect();
        Ok(Response::new(ClusterInfo { members }))
    }
}

#[tonic::async_trait]
impl ServerFeatures for Node {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let method = |(name, features): (&str, &[&str])| SupportedMethod {
            method_name: name.to_owned(),
            service_name: "event_store.client.streams.streams".to_owned(),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        };
        let methods: [(&str, &[&str]); 5] = [
            ("read", &["position", "events"]),
            ("append", &[]),
            ("delete", &[]),
            ("tombstone", &[]),
            ("batchappend", &["deadline_duration"]),
        ];
        Ok(Response::new(SupportedMethods {
            methods: methods.into_iter().map(method).collect(),
            event_store_server_version: "23.10.8".to_owned(),
        }))
    }
}
