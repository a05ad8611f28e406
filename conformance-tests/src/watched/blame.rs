//! Checks of what errors say.

use annals_core::{Append, Error, ErrorKind, EventStream, ExpectedVersion, Result, StreamId};
use futures::StreamExt;

/// A call, whose errors have to name it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    backend: &'static str,
    operation: &'static str,
    /// The stream that the call is about, if it is about one.
    stream: Option<StreamId>,
    /// The streams that a conflict can be about.
    streams: Vec<StreamId>,
    /// What the call expects of which stream; `None`: of any of its streams.
    expected: Vec<(Option<StreamId>, ExpectedVersion)>,
}

impl Call {
    pub(super) fn new(backend: &'static str, operation: &'static str) -> Self {
        Self { backend, operation, stream: None, streams: Vec::new(), expected: Vec::new() }
    }

    /// The call is about this stream.
    pub(super) fn of(mut self, stream: &StreamId) -> Self {
        self.stream = Some(stream.clone());
        self.streams.push(stream.clone());
        self
    }

    pub(super) fn of_one_of(mut self, streams: Vec<StreamId>) -> Self {
        self.streams = streams;
        self
    }

    pub(super) fn expects(mut self, expected: ExpectedVersion) -> Self {
        self.expected.push((None, expected));
        self
    }

    pub(super) fn expecting(mut self, appends: &[Append]) -> Self {
        for append in appends {
            self.streams.push(append.stream.clone());
            self.expected.push((Some(append.stream.clone()), append.expected));
        }
        self
    }

    #[track_caller]
    pub(super) fn answer<T>(&self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer {
            self.check(error);
        }
        answer
    }

    pub(super) fn read(self, events: EventStream) -> EventStream {
        events.map(move |event| self.answer(event)).boxed()
    }

    #[track_caller]
    fn check(&self, error: &Error) {
        let Self { backend, operation, stream, streams, expected } = self;
        let due = |what: &str, due: &dyn std::fmt::Debug| {
            panic!("an error of `{operation}` has to name the {what} {due:?}: {error:?}")
        };
        if error.backend() != Some(backend) {
            due("backend", backend);
        }
        if error.operation() != Some(operation) {
            due("operation", operation);
        }
        match stream {
            Some(stream) if error.stream() != Some(stream) => due("stream", stream),
            _ => {}
        }
        if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::StreamClosed)
            && error.stream().is_none_or(|stream| !streams.contains(stream))
        {
            due("stream, one of", streams);
        }
        let Some(conflict) = error.conflict() else {
            assert!(
                error.kind() != ErrorKind::Conflict || expected.is_empty(),
                "a conflict must say which version was expected, and which is the actual one: \
                 {error:?}"
            );
            return;
        };
        if Some(&conflict.stream) != error.stream() {
            due("stream of the conflict", &conflict.stream);
        }
        let is_due = |(of, expected): &(Option<StreamId>, ExpectedVersion)| {
            of.as_ref().is_none_or(|of| *of == conflict.stream) && *expected == conflict.expected
        };
        if !expected.is_empty() && !expected.iter().any(is_due) {
            due("expectation of the call, one of", expected);
        }
    }
}
