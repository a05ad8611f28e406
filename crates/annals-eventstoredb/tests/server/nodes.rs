//! Scripted servers: nodes that are not the leader, subscriptions that end, events that annals
//! would not have written.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use annals_core::{
    ContentKind, ErrorKind, EventStore, EventStoreExt, ExpectedVersion, ReadAll, Subscribe,
    TryStreamExt,
};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_gateway::proto::{
    header,
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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
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
    /// How many appends it takes over a call that they share before it ends the call without an answer.
    /// None: it does not know the call.
    batch: Mutex<Option<usize>>,
    /// The appends that it took so.
    batched: AtomicUsize,
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
            metadata: metadata.map(|(key, value)| header::encode(key, value)).into(),
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
                    Content::Event(ReadEvent {
                        event: Some(Box::new(event)),
                        ..ReadEvent::default()
                    })
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
        answers.extend(events.into_iter().take(count).map(|event| {
            Content::Event(ReadEvent { event: Some(Box::new(event)), ..ReadEvent::default() })
        }));
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
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Answers<BatchAppendResp>>, Status> {
        let most = *self.0.batch.lock().unwrap();
        let most = most.ok_or_else(|| Status::unimplemented("the script has no answer to this"))?;
        let (node, mut requests) = (self.clone(), request.into_inner());
        let answers = stream::once(async move {
            for _ in 0..most {
                requests.message().await?;
                node.0.batched.fetch_add(1, SeqCst);
            }
            Err(Status::unavailable("Server Is Not Ready"))
        });
        Ok(Response::new(Box::pin(answers)))
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
    node.node.write(|e| e.metadata = Vec::new());
    let error = store.load_stream(&id(STREAM)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an event without a type: {error:?}");
    node.node.0.events.lock().unwrap()[1].id = None;
    let error = store.load_stream(&id(STREAM)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an event without an id: {error:?}");
}

/// None of the writers can know whether the server has written what it took.
#[tokio::test]
async fn appends_whose_shared_call_ends_without_an_answer_may_be_written() {
    const WRITERS: usize = 8;
    let node = Node::default().start().await;
    *node.node.0.batch.lock().unwrap() = Some(WRITERS);
    let options = EventStoreDbOptions::default().with_retry_for(Duration::ZERO);
    let store = node.open(options).await;
    let append = |number: usize| {
        let store = &store;
        async move {
            let stream = id(&format!("order-{number}"));
            store.append_to(&stream, ExpectedVersion::NoStream, [event(1)]).await
        }
    };
    let all = futures::future::join_all((0..WRITERS).map(append));
    for lost in within("the end of the call", all).await {
        let lost = lost.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Unavailable);
        assert!(lost.outcome_unknown(), "{lost:?}");
    }
    assert_eq!(node.node.0.batched.load(SeqCst), WRITERS);
    // One that is alone in its call is refused by what the server says.
    *node.node.0.batch.lock().unwrap() = Some(1);
    let refused = within("an answer", append(9)).await.unwrap_err();
    assert!(!refused.outcome_unknown(), "{refused:?}");
}

/// Passes on what a client and a server say. Once `turns_away` is set, the next request does not get to
/// the server, and the client is told so: by the number of the last request that was begun.
async fn pass_on(client: TcpStream, server: SocketAddr, turns_away: Arc<AtomicBool>) {
    const HEADERS: u8 = 1;
    let ((mut from, to_client), (mut answers, mut to_server)) =
        (client.into_split(), TcpStream::connect(server).await.unwrap().into_split());
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let back = to_client.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = answers.read(&mut buffer).await {
            back.lock().await.write_all(&buffer[..count]).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut preface = [0; 24];
    let pass = async {
        from.read_exact(&mut preface).await?;
        to_server.write_all(&preface).await?;
        loop {
            let mut head = [0; 9];
            from.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length as usize];
            from.read_exact(&mut body).await?;
            if head[3] == HEADERS && turns_away.swap(false, SeqCst) {
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let mut go_away = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
                go_away.extend(stream.saturating_sub(2).to_be_bytes());
                // No error is the reason.
                go_away.extend([0; 4]);
                to_client.lock().await.write_all(&go_away).await?;
                // Until the client has understood.
                return tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(drop);
            }
            to_server.write_all(&[&head[..], &body].concat()).await?;
        }
    };
    let _: std::io::Result<()> = pass.await;
}

/// What a server that stops says to requests that come too late.
#[tokio::test]
async fn an_append_that_the_server_has_not_begun_is_sent_again() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("esdb://{}?tls=false", listener.local_addr().unwrap());
    let (turns_away, target) = (Arc::new(AtomicBool::new(false)), addr_of(&server));
    let turning = turns_away.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, target, turning.clone()));
        }
    });
    let store = EventStoreDbStore::open(EventStoreDbConfig::from_url(&url).unwrap()).await.unwrap();
    turns_away.store(true, SeqCst);
    let append = store.append_to("order-1", ExpectedVersion::Any, [event(1)]);
    within("the append", append).await.unwrap();
    assert!(!turns_away.load(SeqCst), "no request was turned away");
    assert_eq!(server.store.load_stream(&id("order-1")).await.unwrap().len(), 1);
}
