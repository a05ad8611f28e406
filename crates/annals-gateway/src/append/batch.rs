//! The call `BatchAppend`: several appends over one call, each answered when it is done.

use std::collections::HashSet;

use annals_core::{Append, StreamId};
use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tonic::{Status, Streaming};

use super::{
    batch_error,
    write::{Appender, LimitedEvents, write_target},
};
use crate::{
    names::described_stream,
    proto::{
        shared::Uuid as WireUuid,
        streams::{
            BatchAppendReq, BatchAppendResp, WriteOptions, batch_append_resp::Result as Answer,
        },
    },
};

/// How many appends of one call run at the same time.
const MAX_RUNNING: usize = 64;

/// How many appends of one call may be incomplete at the same time.
const MAX_INCOMPLETE: usize = 64;

/// Executes the call. Appends to the same stream run one after the other, in the order in which
/// they became complete; other appends run at the same time.
pub(crate) fn batch_append(
    appender: Appender,
    mut messages: Streaming<BatchAppendReq>,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send {
    try_stream! {
        let mut incomplete = IncompleteAppends { appends: Vec::new(), max_bytes: appender.max_bytes };
        let mut running: FuturesUnordered<BoxFuture<'static, Finished>> = FuturesUnordered::new();
        let mut busy_streams = HashSet::new();
        let mut ended = false;
        while !(ended && running.is_empty()) {
            let next = tokio::select! {
                Some(finished) = running.next(), if !running.is_empty() => Next::Finished(finished),
                message = messages.message(), if !ended && running.len() < MAX_RUNNING => {
                    Next::Message(message)
                }
            };
            let complete = match next {
                Next::Finished((stream, answer)) => {
                    release(&mut busy_streams, stream);
                    yield answer;
                    continue;
                }
                Next::Message(message) => match message? {
                    Some(message) => incomplete.add(message),
                    None => {
                        ended = true;
                        continue;
                    }
                },
            };
            let Some(complete) = complete else { continue };
            let stream = complete.append.as_ref().ok().map(|append| append.stream.clone());
            while stream.as_ref().is_some_and(|stream| busy_streams.contains(stream)) {
                if let Some((finished, answer)) = running.next().await {
                    release(&mut busy_streams, finished);
                    yield answer;
                }
            }
            busy_streams.extend(stream.clone());
            let appender = appender.clone();
            running.push(async move { (stream, execute(&appender, complete).await) }.boxed());
        }
    }
}

/// The stream of an append that has finished, if the append had a valid one, and the answer.
type Finished = (Option<StreamId>, BatchAppendResp);

enum Next {
    Finished(Finished),
    Message(Result<Option<BatchAppendReq>, Status>),
}

fn release(busy_streams: &mut HashSet<StreamId>, stream: Option<StreamId>) {
    if let Some(stream) = stream {
        busy_streams.remove(&stream);
    }
}

/// An append whose last message has not arrived yet.
struct IncompleteAppend {
    correlation_id: Option<WireUuid>,
    options: Option<WriteOptions>,
    events: Result<LimitedEvents, Status>,
}

/// An append whose messages have all arrived.
struct CompleteAppend {
    correlation_id: Option<WireUuid>,
    options: WriteOptions,
    append: Result<Append, Status>,
}

struct IncompleteAppends {
    appends: Vec<IncompleteAppend>,
    max_bytes: usize,
}

impl IncompleteAppends {
    /// Adds a message to its append. Returns the append if it is complete now.
    fn add(&mut self, message: BatchAppendReq) -> Option<CompleteAppend> {
        let BatchAppendReq { correlation_id, options, proposed_messages, is_final } = message;
        let index = self.appends.iter().position(|other| other.correlation_id == correlation_id);
        let mut append = match index {
            Some(index) => self.appends.swap_remove(index),
            None => {
                let events = Ok(LimitedEvents::new(self.max_bytes));
                IncompleteAppend { correlation_id, options: None, events }
            }
        };
        append.options = options.or(append.options);
        append.events = append.events.and_then(|mut events| {
            for event in proposed_messages {
                events.push(event)?;
            }
            Ok(events)
        });
        if !is_final {
            if self.appends.len() < MAX_INCOMPLETE {
                self.appends.push(append);
                return None;
            }
            let message = "too many appends of this call are incomplete";
            append.events = Err(Status::resource_exhausted(message));
        }
        Some(append.complete())
    }
}

impl IncompleteAppend {
    fn complete(self) -> CompleteAppend {
        let Self { correlation_id, options, events } = self;
        let options = options.unwrap_or_default();
        let append = events.and_then(|events| {
            let (stream, expected) = write_target(&options)?;
            Ok(Append::new(stream, expected, events.into_events()))
        });
        CompleteAppend { correlation_id, options, append }
    }
}

async fn execute(appender: &Appender, complete: CompleteAppend) -> BatchAppendResp {
    let CompleteAppend { correlation_id, options, append } = complete;
    let result = match append {
        Err(status) => Err(batch_error::refused(&status)),
        Ok(append) => {
            let described = described_stream(options.stream_identifier.as_ref());
            let written = appender.write(append, described.as_ref()).await;
            written.map_err(|error| batch_error::store_error(&error))
        }
    };
    BatchAppendResp {
        correlation_id,
        stream_identifier: options.stream_identifier,
        // EventStoreDB leaves out the expectation, too. The .NET client fails to read one that is
        // greater than `i64::MAX`.
        expected: None,
        result: Some(match result {
            Ok(outcome) => Answer::Success(outcome.success()),
            Err(error) => Answer::Error(error),
        }),
    }
}
