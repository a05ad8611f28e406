//! Where a command reads events from: a store, or a file.

use std::sync::Arc;

use annals::{EventStream, OpenMode, Position, RecordedEvent, Store, StoreUrl};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::{
    failure::Failure,
    file::EventFile,
    piece::{self, Piece},
    removed::NotRemoved,
    select::{Select, SelectStreams},
};

/// A store that is open, or a file.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Store { url: StoreUrl, store: Arc<dyn Store> },
    File(EventFile),
}

/// Chunks of events that a task of their own reads ahead.
pub(crate) type Chunks = mpsc::Receiver<Result<Vec<RecordedEvent>, Failure>>;

/// How many chunks are read ahead.
const AHEAD: usize = 4;

impl Source {
    /// Opens a store or a file that must exist: nothing is created.
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        if let Some(file) = EventFile::of(url) {
            return Ok(Self::File(file));
        }
        let store = open_existing(url).await?;
        Ok(Self::Store { url: StoreUrl::parse(url)?, store })
    }

    /// The source as messages name it, without secrets.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Store { url, .. } => url.to_string(),
            Self::File(file) => file.shown(),
        }
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        match self {
            Self::Store { store, .. } => Some(store),
            Self::File(_) => None,
        }
    }

    /// The selected events after a position, in the order of positions.
    pub(crate) fn read(&self, after: Position, select: &Select) -> Chunks {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let select = select.clone();
        match self.clone() {
            Self::Store { store, .. } => {
                tokio::spawn(async move {
                    if let Err(error) = read_store(store, after, &select, &sender).await {
                        // If this fails, the receiver was dropped: nobody wants the error.
                        let _ = sender.send(Err(error)).await;
                    }
                });
            }
            Self::File(file) => {
                // Not a blocking task of the runtime: when the command ends, the runtime would wait
                // for a task that waits for standard input.
                std::thread::spawn(move || read_file(&file, after, &select, &sender));
            }
        }
        chunks
    }
}

/// Opens a store that must exist, so that a mistyped name is an error and not a new store.
pub(crate) async fn open_existing(url: &str) -> Result<Arc<dyn Store>, Failure> {
    // A store in memory has no name that could be mistyped. It is empty.
    let mode = match StoreUrl::parse(url)?.is_in_memory() {
        true => OpenMode::Create,
        false => OpenMode::Existing,
    };
    Ok(annals::connect_with(url, mode).await?)
}

async fn read_store(
    store: Arc<dyn Store>,
    after: Position,
    select: &Select,
    sender: &mpsc::Sender<Result<Vec<RecordedEvent>, Failure>>,
) -> Result<(), Failure> {
    let mut not_removed = NotRemoved::of(&store);
    let mut events = in_order(&store, after, select)?.fuse();
    while let Some((chunk, error)) = piece::next(&mut events).await {
        let kept = not_removed.filter(chunk, select).await?;
        if sender.send(Ok(kept)).await.is_err() {
            return Ok(());
        }
        if let Some(error) = error {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The events that the store's filter selects, in the order of positions. A store without an order
/// over all streams gives the streams that are named, one after the other.
fn in_order(
    store: &Arc<dyn Store>,
    after: Position,
    select: &Select,
) -> Result<EventStream, Failure> {
    if store.capabilities().global_order {
        return Ok(
            store.read_all(annals::ReadAll::default().with_filter(select.filter()).after(after))
        );
    }
    let SelectStreams { ids, categories, prefix } = &select.streams;
    if ids.is_empty() || !categories.is_empty() || prefix.is_some() {
        return Err(Failure::usage(
            "this store keeps no order over its streams, so it can only be read one stream at a \
             time: name the streams by --stream",
        ));
    }
    let (store, ids) = (store.clone(), ids.clone());
    let streams = futures::stream::iter(ids);
    Ok(streams.flat_map(move |id| store.read_stream(&id, annals::ReadStream::default())).boxed())
}

fn read_file(
    file: &EventFile,
    after: Position,
    select: &Select,
    sender: &mpsc::Sender<Result<Vec<RecordedEvent>, Failure>>,
) {
    let mut piece = Piece::default();
    let read = file.for_each_event(|event| {
        if event.position <= after || !select.matches(&event) {
            return true;
        }
        match piece.push(event) {
            Some(full) => sender.blocking_send(Ok(full)).is_ok(),
            None => true,
        }
    });
    // If this fails, the receiver was dropped: nobody wants more.
    let _ = sender.blocking_send(Ok(piece.take()));
    if let Err(error) = read {
        let _ = sender.blocking_send(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{file::Format, piece::tests::event};

    #[tokio::test]
    async fn a_file_is_read_in_pieces_that_are_bounded_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let mut lines = Vec::new();
        (1..=100).for_each(|version| {
            Format::Lines.write(&event(version, 128 << 10), &mut lines).unwrap()
        });
        std::fs::write(&path, lines).unwrap();
        let source = Source::File(EventFile { format: Format::Lines, path });
        let mut chunks = source.read(Position::START, &Select::default());
        let mut count = 0;
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.unwrap();
            count += chunk.len();
            let bytes: usize = chunk.iter().map(RecordedEvent::size).sum();
            assert!(bytes <= 1 << 20, "{bytes} bytes in one piece");
        }
        assert_eq!(count, 100);
    }
}
