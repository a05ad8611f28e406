//! Where a command reads events from: a store, or a file.

use std::sync::Arc;

use annals::{
    Error, EventStoreExt, EventStream, OpenMode, Position, ReadAll, ReadStream, RecordedEvent,
    Store, StoreUrl,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::{
    deletions::{Deletions, LookUp},
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

/// Events that were read.
pub(crate) struct Chunk {
    pub(crate) events: Vec<RecordedEvent>,
    /// The streams that were deleted before one of these events, or of those that follow.
    pub(crate) deletions: Deletions,
}

/// Chunks of events that a task of their own reads ahead.
pub(crate) type Chunks = mpsc::Receiver<Result<Chunk, Failure>>;
type Sender = mpsc::Sender<Result<Chunk, Failure>>;

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

    /// The place where a read of the selected events may begin: what was recorded before `--since` is
    /// not read, if there is a way to find it.
    pub(crate) async fn start(&self, select: &Select) -> Result<Position, Failure> {
        match (self.store(), select.times.since) {
            (Some(store), Some(since)) if store.capabilities().global_order => {
                Ok(store.position_before(since).await?)
            }
            _ => Ok(Position::START),
        }
    }

    /// The selected events after a position, in the order of positions, without the deletions.
    pub(crate) fn read(&self, after: Position, select: &Select) -> Chunks {
        self.read_chunks(after, select, false)
    }

    /// The same with the deletions, which must be looked up in a store.
    pub(crate) fn read_with_deletions(&self, after: Position, select: &Select) -> Chunks {
        self.read_chunks(after, select, true)
    }

    fn read_chunks(&self, after: Position, select: &Select, deletions: bool) -> Chunks {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let select = select.clone();
        match self.clone() {
            Self::Store { store, .. } => {
                let look_up = deletions.then(|| LookUp::of(&store));
                tokio::spawn(async move {
                    if let Err(error) = read_store(store, after, &select, look_up, &sender).await {
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
    mut look_up: Option<LookUp>,
    sender: &Sender,
) -> Result<(), Failure> {
    let mut not_removed = NotRemoved::of(&store);
    let mut events = in_order(&store, after, select)?.fuse();
    while let Some((chunk, error)) = piece::next(&mut events).await {
        let events = not_removed.filter(chunk, select).await?;
        let deletions = match &mut look_up {
            Some(look_up) => look_up.before(&events).await?,
            None => Deletions::new(),
        };
        if sender.send(Ok(Chunk { events, deletions })).await.is_err() {
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
        return Ok(store.read_all(ReadAll::default().with_filter(select.filter()).after(after)));
    }
    let SelectStreams { ids, categories, prefix } = &select.streams;
    if ids.is_empty() || !categories.is_empty() || prefix.is_some() {
        return Err(Failure::usage(
            "this store keeps no order over its streams, so it can only be read one stream at a \
             time: name the streams by --stream",
        ));
    }
    let (store, ids, since) = (store.clone(), ids.clone(), select.times.since);
    let read = move |id| {
        let store = store.clone();
        async move {
            let mut options = ReadStream::default();
            if let Some(since) = since {
                options = options.with_from(store.version_before(&id, since).await?.plus(1));
            }
            Ok::<_, Error>(store.read_stream(&id, options))
        }
    };
    Ok(futures::stream::iter(ids).then(read).try_flatten().boxed())
}

fn read_file(file: &EventFile, after: Position, select: &Select, sender: &Sender) {
    let (mut piece, mut deletions) = (Piece::default(), Deletions::new());
    let (mut greatest, mut is_wanted) = (Position::START, true);
    let read = file.for_each_event(|event, deleted_at| {
        greatest = greatest.max(event.position);
        if let Some(at) = deleted_at.filter(|_| select.streams.matches(&event.stream)) {
            deletions.push((event.stream.clone(), at));
        }
        if event.position > after
            && select.matches(&event)
            && let Some(events) = piece.push(event)
        {
            let deletions = std::mem::take(&mut deletions);
            is_wanted = sender.blocking_send(Ok(Chunk { events, deletions })).is_ok();
        }
        is_wanted
    });
    let read = match read {
        Ok(()) if is_wanted && after > greatest => {
            Err(Failure::from(Error::beyond_end(after, greatest)).at(file.shown()))
        }
        read => read,
    };
    // If this fails, the receiver was dropped: nobody wants more.
    let _ = sender.blocking_send(Ok(Chunk { events: piece.take(), deletions }));
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
            Format::Lines.write(&event(version, 128 << 10), None, &mut lines).unwrap()
        });
        std::fs::write(&path, lines).unwrap();
        let source = Source::File(EventFile { format: Format::Lines, path });
        let mut chunks = source.read(Position::START, &Select::default());
        let mut count = 0;
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.unwrap().events;
            count += chunk.len();
            let bytes: usize = chunk.iter().map(RecordedEvent::size).sum();
            assert!(bytes <= 1 << 20, "{bytes} bytes in one piece");
        }
        assert_eq!(count, 100);
    }
}
