//! The connections of a store: which node takes a request, and what happens when it fails.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use annals_core::{Result, adapter::Backoff};
use kurrentdb::NodePreference;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tonic::{Request, transport::Channel};

use annals_eventstoredb_proto::{
    gossip::{MemberInfo, gossip_client::GossipClient, member_info::VNodeState},
    shared::Empty,
};

use crate::{
    batch::Batch,
    dial::{self, ConnectError},
    error::{Failure, Refusal},
    settings::{Address, Settings},
};

/// The server is told the deadline of each request. This side waits a little longer for the answer,
/// so that an answer that was sent just in time still arrives.
const SLACK: Duration = Duration::from_millis(500);

/// The first and the longest pause before a request is sent again.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The longest pause after another writer came first.
const LOST_RACE: Duration = Duration::from_millis(10);

/// The reads and subscriptions that share a connection. The server answers at most 100 calls of a
/// connection at the same time, and says nothing about others.
const LONG_CALLS_PER_CHANNEL: usize = 90;

/// Which node a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The leader, which knows of every append that was answered.
    Leader,
    /// The node from which events are read: the leader, too, unless the settings prefer others.
    Events,
}

/// The connection to a server or a cluster.
pub(crate) struct Connection {
    settings: Settings,
    deadline: Duration,
    retry_for: Duration,
    state: Mutex<State>,
    /// Held while a node is looked for, so that many requests look together.
    discovery: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    leader: Option<Arc<Node>>,
    events: Option<Arc<Node>>,
    /// The members that a node named last.
    members: Vec<Address>,
}

impl State {
    fn of(&mut self, target: Target) -> &mut Option<Arc<Node>> {
        match target {
            Target::Leader => &mut self.leader,
            Target::Events => &mut self.events,
        }
    }
}

/// A node, with its channels.
pub(crate) struct Node {
    pub(crate) address: Address,
    at: Option<SocketAddr>,
    /// For requests that end soon.
    short: Channel,
    /// For appends that share a call.
    pub(crate) batch: Batch,
    /// True if the node does not know the call that appends share.
    no_batches: AtomicBool,
    /// For reads and subscriptions.
    long: Mutex<Vec<(Channel, Arc<Semaphore>)>>,
}

impl Node {
    fn new(
        settings: &Settings,
        address: Address,
        at: Option<SocketAddr>,
    ) -> Result<Self, ConnectError> {
        let short = dial::channel(settings, &address, at)?;
        let (batch, no_batches, long) =
            (Batch::default(), AtomicBool::new(false), Mutex::default());
        Ok(Self { address, at, short, batch, no_batches, long })
    }

    pub(crate) fn takes_batches(&self) -> bool {
        !self.no_batches.load(Relaxed)
    }

    pub(crate) fn has_no_batches(&self) {
        self.no_batches.store(true, Relaxed);
    }

    pub(crate) fn short(&self) -> Channel {
        self.short.clone()
    }

    /// A channel that has room for a long call, as long as the permit is held.
    pub(crate) fn long(
        &self,
        connection: &Connection,
    ) -> Result<(Channel, OwnedSemaphorePermit), Failure> {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        for (channel, room) in long.iter() {
            if let Ok(permit) = room.clone().try_acquire_owned() {
                return Ok((channel.clone(), permit));
            }
        }
        let channel = dial::channel(&connection.settings, &self.address, self.at);
        let channel = channel.map_err(Failure::Connect)?;
        let room = Arc::new(Semaphore::new(LONG_CALLS_PER_CHANNEL));
        long.push((channel.clone(), room.clone()));
        let permit = room.try_acquire_owned();
        Ok((channel, permit.map_err(|_| Failure::Malformed("a new channel is full"))?))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("hosts", &self.settings.seeds).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(settings: Settings, deadline: Duration, retry_for: Duration) -> Self {
        let (state, discovery) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { settings, deadline, retry_for, state, discovery }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// False if events may come from a node that lags behind the leader.
    pub(crate) fn reads_from_leader(&self) -> bool {
        self.settings.reads_from_leader()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node for a request.
    pub(crate) async fn node(&self, target: Target) -> Result<Arc<Node>, Failure> {
        let target = if self.reads_from_leader() { Target::Leader } else { target };
        if let Some(node) = self.state().of(target) {
            return Ok(node.clone());
        }
        let _discovering = self.discovery.lock().await;
        if let Some(node) = self.state().of(target) {
            return Ok(node.clone());
        }
        let (address, at) = self.discover(target).await?;
        let node = Node::new(&self.settings, address, at).map_err(Failure::Connect)?;
        let node = Arc::new(node);
        *self.state().of(target) = Some(node.clone());
        Ok(node)
    }

    async fn discover(&self, target: Target) -> Result<(Address, Option<SocketAddr>), Failure> {
        if let ([server], false) = (self.settings.seeds.as_slice(), self.settings.is_cluster()) {
            return Ok((server.clone(), None));
        }
        let mut attempts = self.settings.max_discover_attempts;
        loop {
            let failure = match self.ask_members(target).await {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            attempts -= 1;
            if attempts == 0 {
                return Err(failure);
            }
            sleep(self.settings.discovery_interval).await;
        }
    }

    /// Asks one node after the other for the members of the cluster, and chooses one.
    async fn ask_members(&self, target: Target) -> Result<(Address, Option<SocketAddr>), Failure> {
        let mut candidates = self.candidates().await?;
        let mut failure = Failure::NoLeader;
        while !candidates.is_empty() {
            let (address, at) = candidates.swap_remove(fastrand::usize(..candidates.len()));
            let members = match self.gossip(&address, at).await {
                Ok(members) => members,
                Err(error) => {
                    tracing::debug!(%address, %error, "a node does not name the members");
                    if !matches!(failure, Failure::Connect(_)) || candidates.is_empty() {
                        failure = error;
                    }
                    continue;
                }
            };
            let alive: Vec<_> = members.iter().filter(|member| is_usable(member)).collect();
            self.state().members = alive.iter().filter_map(|m| address_of(m)).collect();
            if let Some(chosen) = self.choose(target, &alive) {
                return Ok((chosen, None));
            }
            failure = Failure::NoLeader;
        }
        Err(failure)
    }

    /// The seeds, and the members that were known last.
    async fn candidates(&self) -> Result<Vec<(Address, Option<SocketAddr>)>, Failure> {
        let mut candidates = Vec::new();
        for seed in &self.settings.seeds {
            if !self.settings.discovers {
                candidates.push((seed.clone(), None));
                continue;
            }
            // The name stands for all nodes.
            let found = dial::resolve(seed)
                .await
                .map_err(|cause| Failure::Connect(ConnectError { address: seed.clone(), cause }))?;
            candidates.extend(found.into_iter().map(|at| (seed.clone(), Some(at))));
        }
        let known = self.state().members.clone();
        for address in known {
            if !candidates.iter().any(|(seed, _)| *seed == address) {
                candidates.push((address, None));
            }
        }
        Ok(candidates)
    }

    async fn gossip(
        &self,
        address: &Address,
        at: Option<SocketAddr>,
    ) -> Result<Vec<MemberInfo>, Failure> {
        let channel = dial::channel(&self.settings, address, at).map_err(Failure::Connect)?;
        let mut client = GossipClient::new(channel);
        let asked = client.read(self.request(Empty {}));
        match timeout(self.settings.gossip_timeout, asked).await {
            Err(_) => Err(Failure::Timeout),
            Ok(answer) => Ok(answer?.into_inner().members),
        }
    }

    fn choose(&self, target: Target, members: &[&MemberInfo]) -> Option<Address> {
        let wanted = |member: &MemberInfo| {
            let state = member.state();
            let is_leader = state == VNodeState::Leader;
            match (target, self.settings.preference) {
                (Target::Leader, _) | (_, NodePreference::Leader) => is_leader,
                (_, NodePreference::Follower) => state == VNodeState::Follower,
                (_, NodePreference::ReadOnlyReplica) => state == VNodeState::ReadOnlyReplica,
                (_, NodePreference::Random) => true,
            }
        };
        let mut best: Vec<_> = members.iter().copied().filter(|m| wanted(m)).collect();
        if best.is_empty() && target == Target::Events {
            best = members.to_vec();
        }
        let chosen = best.get(fastrand::usize(..best.len().max(1)))?;
        address_of(chosen)
    }

    /// A request with the headers that all have.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        if let Some(authorization) = &self.settings.authorization {
            headers.insert("authorization", authorization.clone());
        }
        if let Some(name) = &self.settings.connection_name {
            headers.insert("connection-name", name.clone());
        }
        request
    }

    /// Waits for an answer until the deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        // Most messages of a long answer are there already, and need no timer.
        match futures::poll!(answer.as_mut()) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                timeout(self.deadline + SLACK, answer).await.unwrap_or(Err(Failure::Timeout))
            }
        }
    }

    /// Notes that a request to this node failed: the next one may look for another node.
    pub(crate) fn note(&self, node: &Arc<Node>, failure: &Failure) {
        if !failure.leaves_node() {
            return;
        }
        let leader = match failure.refusal() {
            Some(Refusal::NotLeader(leader)) => Node::new(&self.settings, leader.clone(), None),
            // A channel to the only server connects again by itself.
            _ if !self.settings.is_cluster()
                && matches!(failure, Failure::Connect(_) | Failure::Lost(_))
                && self.settings.seeds.first() == Some(&node.address) =>
            {
                return;
            }
            _ => {
                let mut state = self.state();
                for known in [Target::Leader, Target::Events] {
                    // Many requests may fail at once, and one of them has noted it already.
                    if state.of(known).as_ref().is_some_and(|known| Arc::ptr_eq(known, node)) {
                        *state.of(known) = None;
                    }
                }
                return;
            }
        };
        let mut state = self.state();
        if state.leader.as_ref().is_none_or(|known| Arc::ptr_eq(known, node)) {
            state.leader = leader.ok().map(Arc::new);
        }
    }

    pub(crate) fn retries(&self) -> Retries {
        Retries {
            until: Instant::now() + self.retry_for,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            was_named: false,
        }
    }
}

fn is_usable(member: &MemberInfo) -> bool {
    let leaving = [VNodeState::Manager, VNodeState::ShuttingDown, VNodeState::Shutdown];
    member.is_alive && !leaving.contains(&member.state())
}

fn address_of(member: &MemberInfo) -> Option<Address> {
    let at = member.http_end_point.as_ref()?;
    Some(Address::new(&at.address, u16::try_from(at.port).ok()?))
}

/// The retries of one call: pauses that grow, until `retry_for` is over.
#[derive(Debug)]
pub(crate) struct Retries {
    until: Instant,
    backoff: Backoff,
    /// True if a node has named another one as the leader.
    was_named: bool,
}

impl Retries {
    /// Waits a moment after another writer came first. This has no limit: of any number of writers
    /// that compete, one succeeds each time.
    pub(crate) async fn pause_after_lost_race(&mut self) {
        sleep(LOST_RACE.mul_f64(fastrand::f64())).await;
    }

    /// Waits before the next try. False, at once, if the time for retries is over.
    pub(crate) async fn pause_after(&mut self, failure: &Failure) -> bool {
        // The next try goes to the node that was named. Two nodes may name each other for a while.
        let is_named = matches!(failure.refusal(), Some(Refusal::NotLeader(_)));
        let at_once = is_named && !std::mem::replace(&mut self.was_named, is_named);
        let pause = if at_once { Duration::ZERO } else { self.backoff.next_pause() };
        if Instant::now() + pause >= self.until {
            return false;
        }
        tracing::debug!(%failure, "a request is tried again");
        sleep(pause).await;
        true
    }
}
