//! Pieces of events: few enough, and small enough, that several of them fit into memory.

use annals::{Error, RecordedEvent, Result};
use futures::{StreamExt, stream::FusedStream};

/// The most events in a piece.
const MOST_EVENTS: usize = 1_024;
/// The most bytes of payloads in a piece, unless one event has more.
const MOST_BYTES: usize = 1 << 20;

/// A piece that grows.
#[derive(Default)]
pub(crate) struct Piece {
    events: Vec<RecordedEvent>,
    bytes: usize,
}

impl Piece {
    /// Adds an event. Returns the piece if it is full now.
    pub(crate) fn push(&mut self, event: RecordedEvent) -> Option<Vec<RecordedEvent>> {
        self.bytes += event.size();
        self.events.push(event);
        let is_full = self.bytes >= MOST_BYTES || self.events.len() >= MOST_EVENTS;
        is_full.then(|| self.take())
    }

    /// What there is, and an empty piece from now on.
    pub(crate) fn take(&mut self) -> Vec<RecordedEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
}

/// Waits for the next event, and adds those that are ready without waiting. The error, if there is
/// one, comes after the events. `None` at the end.
pub(crate) async fn next(
    events: &mut (impl FusedStream<Item = Result<RecordedEvent>> + Unpin),
) -> Option<(Vec<RecordedEvent>, Option<Error>)> {
    let mut piece = Piece::default();
    let mut event = events.next().await?;
    loop {
        match event.map(|event| piece.push(event)) {
            Ok(None) => {}
            Ok(Some(full)) => return Some((full, None)),
            Err(error) => return Some((piece.take(), Some(error))),
        }
        if events.is_terminated() {
            return Some((piece.take(), None));
        }
        match futures::poll!(events.next()) {
            std::task::Poll::Ready(Some(ready)) => event = ready,
            _ => return Some((piece.take(), None)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use annals::{NewEvent, StreamId};
    use futures::stream;

    use super::*;

    /// An event with this many bytes.
    pub(crate) fn event(version: u64, bytes: usize) -> RecordedEvent {
        let event = NewEvent::binary("Large", vec![0; bytes]).unwrap();
        let at = chrono::DateTime::from_timestamp_micros(1_600_000_000_123_456).unwrap();
        event.recorded(StreamId::new("large-1").unwrap(), version.into(), version.into(), at)
    }

    #[tokio::test]
    async fn a_piece_is_bounded_by_events_and_by_bytes() {
        for (count, bytes, most) in [(3_000, 10, MOST_EVENTS), (40, 128 << 10, 8), (5, 3 << 20, 1)]
        {
            let events = (1..=count).map(|version| Ok(event(version, bytes)));
            let failed = Error::new(annals::ErrorKind::Busy, "busy");
            let mut events = stream::iter(events).chain(stream::iter([Err(failed)])).fuse();
            let (mut versions, mut failed) = (Vec::new(), false);
            while let Some((piece, error)) = next(&mut events).await {
                assert!(piece.len() <= most, "{} events of {bytes} bytes", piece.len());
                versions.extend(piece.iter().map(|event| event.version.get()));
                failed |= error.is_some();
            }
            assert!(failed && versions == (1..=count).collect::<Vec<_>>());
        }
    }
}
