//! Where a command reads events from: a store, or a file.

use std::sync::Arc;

use annals::{
    Error, EventStoreExt, EventStream, OpenMode, Position, ReadAll, ReadStream, RecordedEvent,
    Store, StoreUrl, StreamId,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::{
    deletions::{Deletions, LookUp},
    failure::Failure,
    file::EventFile,
    foreign::Exporter,
    piece::{self, Piece},
    removed::NotRemoved,
    select::{Select, SelectStreams},
};

/// A store that is open, or a file.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Store {
        url: StoreUrl,
        store: Arc<dyn Store>,
        /// What reads events under names that annals does not take, if there may be any.
        exporter: Option<Exporter>,
    },
    File(EventFile),
}

/// Events that were read.
pub(crate) struct Chunk {
    pub(crate) events: Vec<RecordedEvent>,
    /// The streams that were deleted before one of these events, or of those that follow.
    pub(crate) deletions: Deletions,
    /// At the end: the streams of which events were removed, as far as the read has shown any.
    pub(crate) removed: Vec<StreamId>,
}

/// What a read gives besides the events that the store gives by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Also {
    /// Look up deletions.
    pub(crate) deletions: bool,
    /// Events under names that annals does not take.
    pub(crate) foreign: bool,
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
        let parsed = StoreUrl::parse(url)?;
        let (store, exporter) = Exporter::open(&parsed, url, mode_of(&parsed)).await?;
        Ok(Self::Store { url: parsed, store, exporter })
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

    pub(crate) fn exporter(&self) -> Option<&Exporter> {
        match self {
            Self::Store { exporter, .. } => exporter.as_ref(),
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
        self.read_with(after, select, Also::default())
    }

    /// The same with more.
    pub(crate) fn read_with(&self, after: Position, select: &Select, also: Also) -> Chunks {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let select = select.clone();
        match self.clone() {
            Self::Store { store, exporter, .. } => {
                let exporter = exporter.filter(|_| also.foreign);
                tokio::spawn(async move {
                    let from = (store, exporter, after);
                    if let Err(error) = read_store(from, &select, also, &sender).await {
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
    let mode = mode_of(&StoreUrl::parse(url)?);
    Ok(annals::connect_with(url, mode).await?)
}

/// A store in memory has no name that could be mistyped. It is empty.
fn mode_of(url: &StoreUrl) -> OpenMode {
    match url.is_in_memory() {
        true => OpenMode::Create,
        false => OpenMode::Existing,
    }
}

async fn read_store(
    (store, exporter, after): (Arc<dyn Store>, Option<Exporter>, Position),
    select: &Select,
    also: Also,
    sender: &Sender,
) -> Result<(), Failure> {
    let originals = exporter.as_ref().map(|exporter| exporter.originals.clone());
    let mut not_removed = NotRemoved::of(&store, originals);
    let mut look_up = also.deletions.then(|| LookUp::of(&store));
    let mut events = match exporter {
        Some(exporter) => exporter.read(select.filter(), after),
        None => in_order(&store, after, select)?,
    }
    .fuse();
    while let Some((chunk, error)) = piece::next(&mut events).await {
        let events = not_removed.filter(chunk, select).await?;
        let deletions = match &mut look_up {
            Some(look_up) => look_up.before(&events).await?,
            None => Deletions::new(),
        };
        let chunk = Chunk { events, deletions, removed: Vec::new() };
        if sender.send(Ok(chunk)).await.is_err() {
            return Ok(());
        }
        if let Some(error) = error {
            return Err(error.into());
        }
    }
    let (events, deletions) = (Vec::new(), Deletions::new());
    // If this fails, the receiver was dropped: nobody wants more.
    let _ = sender.send(Ok(Chunk { events, deletions, removed: not_removed.streams() })).await;
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
            let chunk = Chunk { events, deletions, removed: Vec::new() };
            is_wanted = sender.blocking_send(Ok(chunk)).is_ok();
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
    let chunk = Chunk { events: piece.take(), deletions, removed: Vec::new() };
    let _ = sender.blocking_send(Ok(chunk));
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
