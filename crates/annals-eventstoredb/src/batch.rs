//! Appends that share a call. A call for each append costs the server and the client more than the append
//! itself when many are under way.
//!
//! If the call ends, nobody can tell which of its appends were written. So only such appends share it as
//! the server recognises when they are sent again: those that expect a version, or no stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use annals_core::{ExpectedVersion, Position, Version};
use annals_eventstoredb_proto::{
    google::rpc,
    shared::{
        WrongExpectedVersion, wrong_expected_version::CurrentStreamRevisionOption as Current,
    },
    streams::{
        BatchAppendReq, BatchAppendResp, ProposedMessage, Success, WriteOptions, batch_append_resp,
        streams_client::StreamsClient, success,
    },
};
use futures::stream;
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use crate::{
    connection::{Connection, Node},
    error::{Failure, Refusal},
    message::{AppendAnswer, EventData, structured, uuid, version_of},
};

/// How many appends wait to be sent before the next one has to wait, too.
const QUEUE: usize = 64;

/// An append with more bytes has a call of its own, so that it holds up no other.
const MAX_BYTES: usize = 64 * 1024;

type Answer = oneshot::Sender<Result<AppendAnswer, Failure>>;

/// An append, and where its answer goes.
struct Job {
    options: WriteOptions,
    events: Vec<ProposedMessage>,
    answer: Answer,
}

/// The way to the open call of a node, if there is one.
#[derive(Default)]
pub(crate) struct Batch {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

/// The appends of a call that were sent, and have no answer yet.
struct Waiting {
    /// `None` once the call has ended.
    answers: Mutex<Option<HashMap<Uuid, Answer>>>,
    /// Told when no append will come any more.
    ended: Notify,
}

impl Waiting {
    fn new() -> Self {
        Self { answers: Mutex::new(Some(HashMap::new())), ended: Notify::new() }
    }

    fn answers(&self) -> MutexGuard<'_, Option<HashMap<Uuid, Answer>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the call has ended. The append is then not sent, and its caller learns of it.
    fn add(&self, id: Uuid, answer: Answer) -> bool {
        match &mut *self.answers() {
            Some(answers) => {
                answers.insert(id, answer);
                true
            }
            None => false,
        }
    }

    fn take(&self, id: Uuid) -> Option<Answer> {
        self.answers().as_mut()?.remove(&id)
    }
}

/// Whether an append may share a call.
pub(crate) fn may_share(expected: ExpectedVersion, events: &[EventData]) -> bool {
    let bytes: usize = events.iter().map(|event| event.data.len() + event.metadata.len()).sum();
    matches!(expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(_)) && bytes <= MAX_BYTES
}

impl Batch {
    /// Sends an append over the node's call, which is opened if there is none.
    pub(crate) async fn append(
        &self,
        connection: &Connection,
        node: &Arc<Node>,
        options: WriteOptions,
        events: &[EventData],
    ) -> Result<AppendAnswer, Failure> {
        let events = events.iter().map(EventData::proposed).collect();
        let jobs = self.jobs(connection, node);
        let (answer, answered) = oneshot::channel();
        // Either fails if the call ended before the append was sent.
        let sent = jobs.send(Job { options, events, answer }).await;
        sent.map_err(|_| Failure::Unsent)?;
        answered.await.unwrap_or(Err(Failure::Unsent))
    }

    fn jobs(&self, connection: &Connection, node: &Arc<Node>) -> mpsc::Sender<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = jobs.as_ref().filter(|jobs| !jobs.is_closed()) {
            return open.clone();
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Waiting::new());
        let messages = requests(receiver, waiting.clone());
        let request = connection.for_leader(messages);
        let client = StreamsClient::new(node.short());
        tokio::spawn(run(client, request, waiting, Arc::downgrade(node)));
        *jobs = Some(sender.clone());
        sender
    }
}

/// The messages of a call. Each append that is sent waits for its answer from then on.
fn requests(
    jobs: mpsc::Receiver<Job>,
    waiting: Arc<Waiting>,
) -> impl futures::Stream<Item = BatchAppendReq> + Send + 'static {
    stream::unfold((jobs, waiting), |(mut jobs, waiting)| async {
        let Some(Job { options, events, answer }) = jobs.recv().await else {
            waiting.ended.notify_one();
            return None;
        };
        let id = Uuid::now_v7();
        if !waiting.add(id, answer) {
            return None;
        }
        let request = BatchAppendReq {
            correlation_id: Some(structured(id)),
            options: Some(options),
            proposed_messages: events,
            is_final: true,
        };
        Some((request, (jobs, waiting)))
    })
}

async fn run(
    mut client: StreamsClient<tonic::transport::Channel>,
    request: Request<impl futures::Stream<Item = BatchAppendReq> + Send + 'static>,
    waiting: Arc<Waiting>,
    node: Weak<Node>,
) {
    let end = tokio::select! {
        // The server may not end a call of which the client has closed its half.
        () = waiting.ended.notified() => return,
        end = async {
            match client.batch_append(request).await {
                Ok(answers) => receive(answers.into_inner(), &waiting).await,
                Err(status) => status,
            }
        } => end,
    };
    if end.code() == Code::Unimplemented
        && let Some(node) = node.upgrade()
    {
        node.has_no_batches();
    }
    let unanswered: Vec<_> = waiting.answers().take().unwrap_or_default().into_values().collect();
    let is_alone = unanswered.len() == 1;
    for answer in unanswered {
        let failure = match Failure::from(end.clone()) {
            // The server ended the call because of one append. The others may have been written.
            Failure::Refused(refusal, status) if !is_alone && refusal != Refusal::Unsupported => {
                Failure::Lost(status)
            }
            failure => failure,
        };
        // A dropped receiver means that the caller has cancelled the append.
        let _ = answer.send(Err(failure));
    }
}

/// Passes on the answers, until the call ends.
async fn receive(mut answers: Streaming<BatchAppendResp>, waiting: &Waiting) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(BatchAppendResp { correlation_id, result, .. })) => {
                // The server may answer twice, the second time with a timeout.
                let answer = uuid(correlation_id).and_then(|id| waiting.take(id));
                if let Some(answer) = answer {
                    let _ = answer.send(read(result));
                }
            }
            Ok(None) => {
                let mut status = Status::unavailable("the server ended the call");
                status.set_source(Arc::new(Failure::Unsent));
                return status;
            }
            Err(status) => return status,
        }
    }
}

fn read(result: Option<batch_append_resp::Result>) -> Result<AppendAnswer, Failure> {
    match result {
        Some(batch_append_resp::Result::Success(success)) => Ok(written(success)),
        Some(batch_append_resp::Result::Error(error)) => refused(error),
        None => Err(Failure::Malformed("the answer to an append is empty")),
    }
}

/// The answer to an append that was written, or recognised.
pub(crate) fn written(success: Success) -> AppendAnswer {
    let version = match success.current_revision_option {
        Some(success::CurrentRevisionOption::CurrentRevision(at)) => version_of(at),
        _ => Version::NONE,
    };
    let position = match success.position_option {
        Some(success::PositionOption::Position(at)) => Some(Position::new(at.commit_position)),
        _ => None,
    };
    AppendAnswer::Written { version, position }
}

/// The details of the error tell its kind.
fn refused(error: rpc::Status) -> Result<AppendAnswer, Failure> {
    let status = Status::new(Code::from_i32(error.code), error.message);
    let details = error.details.unwrap_or_default();
    let kind = details.type_url.rsplit('.').next().unwrap_or_default();
    let refusal = match kind {
        "WrongExpectedVersion" => {
            let wrong = WrongExpectedVersion::decode(details.value.as_slice());
            let wrong = wrong.map_err(|_| Failure::Malformed("the details of an error"))?;
            return Ok(AppendAnswer::WrongVersion(match wrong.current_stream_revision_option {
                Some(Current::CurrentStreamRevision(at)) => version_of(at),
                _ => Version::NONE,
            }));
        }
        "StreamDeleted" => Refusal::Deleted,
        "AccessDenied" => Refusal::Denied,
        "Timeout" => Refusal::Aborted,
        "MaximumAppendSizeExceeded" => Refusal::TooLarge,
        "BadRequest" => Refusal::Unforeseen,
        _ => Refusal::of(&status),
    };
    Err(Failure::Refused(refusal, Box::new(status)))
}
