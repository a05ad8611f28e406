//! Scripted servers: nodes that are not the leader, subscriptions that end, events that annals
//! would not have written.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    ContentKind, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, ReadAll, Subscribe,
    TryStreamExt,
};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_gateway::proto::{
    shared::{
        ReadEvent, StreamIdentifier, SubscriptionConfirmation, Uuid, all_options, read_event,
        stream_options, uuid,
    },
    streams::{
        AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, ReadResp, RemoveReq,
        RemoveResp,
        read_req::options::{CountOption, ReadDirection, StreamOption},
        read_resp::{Content, StreamNotFound},
        streams_server::{Streams, StreamsServer},
    },
};
use futures::{Stream, stream};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Request, Response, Status, Streaming, codegen::tokio_stream::wrappers::TcpListenerStream,
    transport::Server as Transport,
};

use crate::tools::{Server, event, id, next, within};

/// The one stream that a scripted server has.
const STREAM: &str = "order-1";

#[derive(Clone, Default)]
struct Node(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The leader that it names to clients who append.
    leader: Mutex<Option<SocketAddr>>,
    appends: AtomicUsize,
    subscriptions: AtomicUsize,
    events: Mutex<Vec<read_event::RecordedEvent>>,
}

struct Running {
    node: Node,
    addr: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Node {
    async fn start(self) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Transport::builder().add_service(StreamsServer::new(self.clone()));
        let serving = async {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        };
        Running { node: self, addr, serving: tokio::spawn(serving) }
    }

    /// Adds an event to the stream, after `change` has changed it.
    fn write(&self, change: impl FnOnce(&mut read_event::RecordedEvent)) {
        let mut events = self.0.events.lock().unwrap();
        let revision = events.len() as u64;
        let metadata =
            [("type", "Numbered"), ("content-type", "application/json"), ("created", "0")];
        let mut event = read_event::RecordedEvent {
            id: Some(Uuid { value: Some(uuid::Value::String(uuid_of(revision))) }),
            stream_identifier: Some(StreamIdentifier { stream_name: STREAM.into() }),
            stream_revision: revision,
            prepare_position: 10 * (revision + 1),
            commit_position: 10 * (revision + 1),
            metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            custom_metadata: Default::default(),
            data: revision.to_string().into(),
        };
        change(&mut event);
        events.push(event);
    }
}

impl Running {
    async fn open(&self, options: EventStoreDbOptions) -> EventStoreDbStore {
        let url = format!("esdb://{}?tls=false", self.addr);
        let config = EventStoreDbConfig::from_url(&url).unwrap().with_options(options);
        EventStoreDbStore::open(config).await.unwrap()
    }
}

fn uuid_of(number: u64) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for Node {
    type ReadStream = Answers<ReadResp>;
    type BatchAppendStream = Answers<BatchAppendResp>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Answers<ReadResp>>, Status> {
        let options = request.into_inner().options.unwrap();
        let backwards = options.read_direction() == ReadDirection::Backwards;
        let mut answers: Vec<Content> = Vec::new();
        let after = match options.stream_option.as_ref().unwrap() {
            StreamOption::Stream(of) => match of.revision_option {
                Some(stream_options::RevisionOption::Revision(revision)) => 10 * (revision + 1),
                _ => 0,
            },
            StreamOption::All(of) => match of.all_option {
                Some(all_options::AllOption::Position(at)) => at.commit_position,
                _ => 0,
            },
        };
        let in_stream = match options.stream_option.unwrap() {
            StreamOption::Stream(of) => {
                if of.stream_identifier.unwrap().stream_name != STREAM {
                    answers.push(Content::StreamNotFound(StreamNotFound::default()));
                    let answers = answers.into_iter().map(said);
                    return Ok(Response::new(Box::pin(stream::iter(answers))));
                }
                match of.revision_option {
                    Some(stream_options::RevisionOption::Revision(revision)) => revision,
                    _ => 0,
                }
            }
            StreamOption::All(_) => 0,
        };
        let count = match options.count_option.unwrap() {
            CountOption::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            CountOption::Subscription(_) => {
                self.0.subscriptions.fetch_add(1, SeqCst);
                // The subscription ends after the events that are there, without an error.
                let confirmed = SubscriptionConfirmation { subscription_id: "1".to_owned() };
                let events = self.0.events.lock().unwrap().clone();
                let later = events.into_iter().filter(|event| event.commit_position > after);
                let later = later.map(|event| {
                    Content::Event(ReadEvent { event: Some(event), ..ReadEvent::default() })
                });
                let answers: Vec<_> = std::iter::once(Content::Confirmation(confirmed))
                    .chain(later)
                    .map(said)
                    .collect();
                return Ok(Response::new(Box::pin(stream::iter(answers))));
            }
        };
        let mut events = self.0.events.lock().unwrap().clone();
        if backwards {
            events.reverse();
        } else {
            events.retain(|event| event.stream_revision >= in_stream);
        }
        answers.extend(
            events.into_iter().take(count).map(|event| {
                Content::Event(ReadEvent { event: Some(event), ..ReadEvent::default() })
            }),
        );
        Ok(Response::new(Box::pin(stream::iter(answers.into_iter().map(said)))))
    }

    async fn append(
        &self,
        _request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        self.0.appends.fetch_add(1, SeqCst);
        let leader = *self.0.leader.lock().unwrap();
        let leader =
            leader.ok_or_else(|| Status::unimplemented("the script has no answer to this"))?;
        let mut status = Status::not_found("Leader info available");
        let metadata = status.metadata_mut();
        metadata.insert("exception", "not-leader".parse().unwrap());
        metadata.insert("leader-endpoint-host", leader.ip().to_string().parse().unwrap());
        metadata.insert("leader-endpoint-port", leader.port().into());
        Err(status)
    }

    async fn delete(&self, _: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        Err(Status::unimplemented("the script has no answer to this"))
    }

    async fn tombstone(&self, _: Request<RemoveReq>) -> Result<Response<RemoveResp>, Status> {
        Err(Status::unimplemented("the script has no answer to this"))
    }

    async fn batch_append(
        &self,
        _: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Answers<BatchAppendResp>>, Status> {
        Err(Status::unimplemented("the script has no answer to this"))
    }
}

fn said(content: Content) -> Result<ReadResp, Status> {
    Ok(ReadResp { content: Some(content) })
}

fn addr_of(server: &Server) -> SocketAddr {
    let url = server.gateway.url();
    url.trim_start_matches("esdb://").split('?').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_node_that_is_not_the_leader_is_left() {
    let leader = Server::start().await;
    let follower = Node::default().start().await;
    *follower.node.0.leader.lock().unwrap() = Some(addr_of(&leader));
    let store = follower.open(EventStoreDbOptions::default()).await;
    for base in 0..3 {
        let expected = ExpectedVersion::Exact(base.into());
        store.append_to("order-1", expected, [event(base)]).await.unwrap();
    }
    assert_eq!(follower.node.0.appends.load(SeqCst), 1, "it went back to the follower");
    assert_eq!(leader.store.load_stream(&id("order-1")).await.unwrap().len(), 3);
}

/// The store does not stay with a leader that it is told of and cannot reach.
#[tokio::test]
async fn a_leader_that_is_gone_does_not_end_the_store() {
    let gone = Server::start().await;
    let follower = Node::default().start().await;
    *follower.node.0.leader.lock().unwrap() = Some(addr_of(&gone));
    drop(gone);
    let options = EventStoreDbOptions::default().with_retry_for(Duration::from_millis(200));
    let store = follower.open(options).await;
    let lost = store.append_to("order-1", ExpectedVersion::Any, [event(1)]).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert!(!lost.outcome_unknown(), "no leader, so nothing can have been written: {lost:?}");
    let elected = Server::start().await;
    *follower.node.0.leader.lock().unwrap() = Some(addr_of(&elected));
    within("the new leader to be found", async {
        while store.append_to("order-1", ExpectedVersion::Any, [event(2)]).await.is_err() {}
    })
    .await;
    assert_eq!(elected.store.load_stream(&id("order-1")).await.unwrap().len(), 1);
}

/// On one thread, since a loop that never waits would then stop the whole test.
#[tokio::test(flavor = "current_thread")]
async fn a_subscription_goes_on_after_the_server_ends_it_without_an_error() {
    let node = Node::default().start().await;
    let store = node.open(EventStoreDbOptions::default()).await;
    let mut one = store.subscribe(Subscribe::to(id(STREAM))).await.unwrap();
    let mut all = store.subscribe(Subscribe::default()).await.unwrap();
    for number in 0..5 {
        node.node.write(|_| {});
        assert_eq!(next(&mut one).await, number);
        assert_eq!(next(&mut all).await, number);
    }
    within("new subscriptions", async {
        while node.node.0.subscriptions.load(SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn events_with_names_that_annals_forbids_are_left_out_of_all() {
    let node = Node::default().start().await;
    let store = node.open(EventStoreDbOptions::default()).await;
    node.node.write(|_| {});
    node.node.write(|e| {
        e.stream_identifier = Some(StreamIdentifier { stream_name: "order\n1".into() });
    });
    node.node.write(|e| {
        e.stream_identifier = Some(StreamIdentifier { stream_name: "x".repeat(300).into() });
    });
    node.node.write(|e| e.data = "not JSON".into());
    let all: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
    assert_eq!(all.iter().map(|e| e.version.get()).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(all[1].data.kind(), ContentKind::Binary);
    assert_eq!(all[1].position.get(), 40);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_an_error() {
    let node = Node::default().start().await;
    let store = node.open(EventStoreDbOptions::default()).await;
    node.node.write(|_| {});
    node.node.write(|e| e.metadata = HashMap::new());
    let error = store.load_stream(&id(STREAM)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an event without a type: {error:?}");
    node.node.0.events.lock().unwrap()[1].id = None;
    let error = store.load_stream(&id(STREAM)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an event without an id: {error:?}");
}
