//! The call `Append`: one append.

use std::time::Duration;

use annals_core::Append;
use tonic::{Status, Streaming};

use super::{
    request::{LimitedEvents, write_target},
    write::Appender,
};
use crate::{
    call_layer::RequestState,
    names::described_stream,
    proto::{
        shared::Empty,
        streams::{
            AppendReq, AppendResp,
            append_req::Content,
            append_resp::{
                Result as Answer, WrongExpectedVersion,
                wrong_expected_version::{
                    CurrentRevisionOption as Current, CurrentRevisionOption2060 as OldCurrent,
                    ExpectedRevisionOption as Echo, ExpectedRevisionOption2060 as OldEcho,
                },
            },
            write_options::Expected,
        },
    },
    status::{oversized, revision, status},
};

/// How long the rest of a request is read that is refused already.
const REST: Duration = Duration::from_secs(5);

/// Executes the call: a message with options, then one message for each event.
pub(crate) async fn append(
    appender: &Appender,
    mut messages: Streaming<AppendReq>,
    state: &RequestState,
) -> Result<AppendResp, Status> {
    let result = execute(appender, &mut messages, state).await;
    if result.is_err() {
        // A client that is still sending would see a cancelled stream, and not the error.
        let rest = async { while let Ok(Some(_)) = messages.message().await {} };
        let _ = tokio::time::timeout(REST, rest).await;
    }
    result
}

async fn execute(
    appender: &Appender,
    messages: &mut Streaming<AppendReq>,
    state: &RequestState,
) -> Result<AppendResp, Status> {
    let first = messages.message().await.map_err(oversized)?.and_then(|message| message.content);
    let Some(Content::Options(options)) = first else {
        return Err(Status::invalid_argument("the first message of an append must be its options"));
    };
    let (stream, expected) = write_target(&options)?;
    let mut events = LimitedEvents::new(appender.limits);
    while let Some(message) = messages.message().await.map_err(oversized)? {
        let Some(Content::ProposedMessage(event)) = message.content else {
            let error = "every message of an append after the first must be an event";
            return Err(Status::invalid_argument(error));
        };
        events.push(event)?;
    }
    state.check_whole()?;
    let described = described_stream(options.stream_identifier.as_ref());
    let append = Append::new(stream, expected, events.into_events());
    let result = match appender.write(append, described.as_ref()).await {
        Ok(outcome) => Answer::Success(outcome.success()),
        Err(error) => match error.conflict() {
            Some(conflict) => {
                let actual = revision(conflict.actual);
                Answer::WrongExpectedVersion(wrong_version(options.expected, actual))
            }
            None => return Err(status(&error)),
        },
    };
    Ok(AppendResp { result: Some(result) })
}

/// The error has both revisions twice, for clients of 20.6.0 and for newer ones. It repeats the
/// expectation as the client sent it, also a revision that means `NoStream`.
pub(crate) fn wrong_version(expected: Option<Expected>, actual: i64) -> WrongExpectedVersion {
    let (current, old_current) = match u64::try_from(actual) {
        Ok(revision) => {
            (Current::CurrentRevision(revision), OldCurrent::CurrentRevision2060(revision))
        }
        Err(_) => (Current::CurrentNoStream(Empty {}), OldCurrent::NoStream2060(Empty {})),
    };
    let echo = expected.map(|expected| match expected {
        Expected::Any(empty) => (Echo::ExpectedAny(empty), OldEcho::Any2060(empty)),
        Expected::StreamExists(empty) => {
            (Echo::ExpectedStreamExists(empty), OldEcho::StreamExists2060(empty))
        }
        // The old field has no value of its own for this.
        Expected::NoStream(empty) => {
            (Echo::ExpectedNoStream(empty), OldEcho::ExpectedRevision2060(u64::MAX))
        }
        Expected::Revision(revision) => {
            (Echo::ExpectedRevision(revision), OldEcho::ExpectedRevision2060(revision))
        }
    });
    let (echo, old_echo) = echo.unzip();
    WrongExpectedVersion {
        current_revision_option_20_6_0: Some(old_current),
        expected_revision_option_20_6_0: old_echo,
        current_revision_option: Some(current),
        expected_revision_option: echo,
    }
}
