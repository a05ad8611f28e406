//! The call `BatchAppend`: several appends over one call, each answered when it is done.

use std::collections::HashSet;

use annals_core::StreamId;
use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tonic::{Status, Streaming};

use super::{
    batch_error,
    chunks::{CompleteAppend, IncompleteAppends},
    write::Appender,
};
use crate::{
    names::described_stream,
    proto::streams::{BatchAppendReq, BatchAppendResp, batch_append_resp::Result as Answer},
    status::oversized,
};

/// How many appends of one call run at the same time.
const MAX_RUNNING: usize = 64;

/// Executes the call. Appends to the same stream run one after the other, in the order in which
/// they became complete; other appends run at the same time.
pub(crate) fn batch_append(
    appender: Appender,
    mut messages: Streaming<BatchAppendReq>,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send {
    try_stream! {
        let mut incomplete = IncompleteAppends::new(appender.limits);
        let mut running: FuturesUnordered<BoxFuture<'static, Finished>> = FuturesUnordered::new();
        let mut busy_streams = HashSet::new();
        let mut ended = false;
        while !(ended && running.is_empty() && incomplete.is_empty()) {
            let next = tokio::select! {
                Some(finished) = running.next(), if !running.is_empty() => Next::Finished(finished),
                message = messages.message(), if !ended && running.len() < MAX_RUNNING => {
                    Next::Message(message)
                }
                append = incomplete.timed_out() => Next::TimedOut(append),
            };
            let complete = match next {
                Next::TimedOut(append) => Some(append),
                Next::Finished((stream, answer)) => {
                    release(&mut busy_streams, stream);
                    yield answer;
                    continue;
                }
                Next::Message(message) => match message.map_err(oversized)? {
                    Some(message) => incomplete.add(message),
                    None => {
                        ended = true;
                        incomplete.give_up();
                        continue;
                    }
                },
            };
            let Some(complete) = complete else { continue };
            let stream = match &complete.append {
                Some(Ok(append)) => Some(append.stream.clone()),
                _ => None,
            };
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
    TimedOut(CompleteAppend),
}

fn release(busy_streams: &mut HashSet<StreamId>, stream: Option<StreamId>) {
    if let Some(stream) = stream {
        busy_streams.remove(&stream);
    }
}

async fn execute(appender: &Appender, complete: CompleteAppend) -> BatchAppendResp {
    let CompleteAppend { correlation_id, options, append } = complete;
    let result = match append {
        None => Err(batch_error::timeout()),
        Some(Err(status)) => Err(batch_error::refused(&status)),
        Some(Ok(append)) => {
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
