//! What scenarios begin with.

use crate::{
    ask::{self, Any, Ev, Exp, append, evs, options},
    play::Play,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Missing,
    Live,
    Deleted,
    Tombstoned,
    MetadataOnly,
    Revived,
}

impl State {
    pub(crate) const ALL: [Self; 6] = [
        Self::Missing,
        Self::Live,
        Self::Deleted,
        Self::Tombstoned,
        Self::MetadataOnly,
        Self::Revived,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Live => "live",
            Self::Deleted => "deleted",
            Self::Tombstoned => "tombstoned",
            Self::MetadataOnly => "metadata-only",
            Self::Revived => "revived",
        }
    }
}

impl Play {
    /// Appends events `t0`, `t1`, …, each by itself. Returns their positions.
    pub(crate) async fn given(&mut self, stream: &str, count: usize) -> Vec<u64> {
        self.given_events(stream, &evs(count)).await
    }

    /// Appends each event by itself. Returns their positions.
    pub(crate) async fn given_events(&mut self, stream: &str, events: &[Ev]) -> Vec<u64> {
        let mut positions = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let what = format!("{stream}: event {index}");
            let messages = append(stream, Any, std::slice::from_ref(event));
            let answers = self.aside(&what, "Streams/Append", &messages).await;
            positions.extend(answers.position());
        }
        positions
    }

    pub(crate) async fn given_append(
        &mut self,
        stream: &str,
        expected: Exp,
        events: &[Ev],
    ) -> Option<u64> {
        let what = format!("{stream}: {} events in one append, {}", events.len(), expected.name());
        self.aside(&what, "Streams/Append", &append(stream, expected, events)).await.position()
    }

    pub(crate) async fn given_metadata(&mut self, stream: &str, json: &str) {
        let event = ask::ev("$metadata", json);
        let what = format!("{stream} has metadata {json}");
        self.aside(&what, "Streams/Append", &append(format!("$${stream}"), Any, &[event])).await;
    }

    pub(crate) async fn given_deleted(&mut self, stream: &str) {
        let what = format!("{stream} is deleted");
        self.aside(&what, "Streams/Delete", &[options(stream, Any)]).await;
    }

    pub(crate) async fn given_tombstone(&mut self, stream: &str) {
        let what = format!("{stream} is tombstoned");
        self.aside(&what, "Streams/Tombstone", &[options(stream, Any)]).await;
    }

    pub(crate) async fn given_call(&mut self, what: &str, path: &str, message: &str) {
        self.aside(what, path, &[message.to_owned()]).await;
    }

    /// Brings a new stream into this state. If it had events, it had two.
    pub(crate) async fn given_state(&mut self, state: State) -> String {
        let stream = self.stream();
        match state {
            State::Missing => {}
            State::Live => drop(self.given(&stream, 2).await),
            State::Deleted => {
                self.given(&stream, 2).await;
                self.given_deleted(&stream).await;
            }
            State::Tombstoned => {
                self.given(&stream, 2).await;
                self.given_tombstone(&stream).await;
            }
            State::MetadataOnly => self.given_metadata(&stream, r#"{"a":1}"#).await,
            State::Revived => {
                self.given(&stream, 2).await;
                self.given_deleted(&stream).await;
                self.given(&stream, 1).await;
            }
        }
        stream
    }
}
