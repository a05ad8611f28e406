//! Where events are: in a store, or in a file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    sync::Arc,
};

use annals::{
    EventStream, Position, ReadAll, RecordedEvent, Removal, Store, StreamId, StreamState, Version,
};
use futures::{StreamExt, TryStreamExt, stream::TryReadyChunksError};
use tokio::sync::mpsc;

use crate::{
    cloudevents,
    failure::Failure,
    lines::{self, Entry},
    select::{Select, Streams},
    url::{shown, with_parameter},
};

/// How events stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Lines,
    CloudEvents,
}

impl Format {
    pub(crate) fn write(self, event: &RecordedEvent, out: &mut Vec<u8>) -> Result<(), Failure> {
        let written = match self {
            Self::Lines => lines::write(event, out),
            Self::CloudEvents => cloudevents::write(event, out),
        };
        written
            .map_err(|e| Failure::new(format!("event {} of {}: {e}", event.version, event.stream)))
    }

    /// What every line begins with that annals writes.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Lines => "{\"stream\":\"",
            Self::CloudEvents => "{\"specversion\":\"1.0\"",
        }
    }

    pub(crate) fn parse(self, line: &str) -> Result<Entry, String> {
        match self {
            Self::Lines => lines::parse(line),
            Self::CloudEvents => cloudevents::parse(line),
        }
    }
}

/// A file of events, `-` for standard input and output.
#[derive(Clone, Debug)]
pub(crate) struct EventFile {
    pub(crate) format: Format,
    pub(crate) path: PathBuf,
}

impl EventFile {
    /// The file that a URL names; none where it names a store.
    pub(crate) fn of(url: &str) -> Option<Self> {
        let (scheme, path) = url.split_once(':')?;
        let format = match scheme {
            "jsonl" => Format::Lines,
            "cloudevents" => Format::CloudEvents,
            _ => return None,
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        Some(Self { format, path: path.into() })
    }

    pub(crate) fn is_stdio(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("{}: {error}", self.path.display()))
    }

    fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        if self.is_stdio() {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file = File::open(&self.path).map_err(|e| self.failure(&e))?;
        Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
    }

    /// Calls with every line up to a length, and its number, until it is told `false`.
    pub(crate) fn for_each_line(
        &self,
        length: Option<u64>,
        mut each: impl FnMut(&str, u64) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut file = self.open()?.take(length.unwrap_or(u64::MAX));
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = file.read_until(b'\n', &mut line).map_err(|e| self.failure(&e))?;
            if read == 0 {
                return Ok(());
            }
            number += 1;
            let text = std::str::from_utf8(&line)
                .map_err(|e| self.bad_line(number, &format!("no UTF-8: {e}")))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() && !each(text, number)? {
                return Ok(());
            }
        }
    }

    pub(crate) fn bad_line(&self, number: u64, error: &str) -> Failure {
        Failure::usage(format!("{}, line {number}: {error}", self.path.display()))
    }

    pub(crate) fn bad_end(&self, error: &str) -> Failure {
        Failure::usage(format!("{}, at its end: {error}", self.path.display()))
    }

    /// Calls with every event, until it is told `false`.
    pub(crate) fn for_each_event(
        &self,
        mut each: impl FnMut(RecordedEvent) -> bool,
    ) -> Result<(), Failure> {
        self.for_each_line(None, |text, number| {
            let entry = self.format.parse(text).map_err(|e| self.bad_line(number, &e))?;
            let event = entry.into_recorded().map_err(|missing| {
                let what = format!(
                    "the {missing} is missing, so this is no export of annals; `annals append` takes \
                     events of others"
                );
                self.bad_line(number, &what)
            })?;
            Ok(each(event))
        })
    }
}

/// Where events are read from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Store { url: String, store: Arc<dyn Store> },
    File(EventFile),
}

/// Events, some at a time, read ahead by a task of their own.
pub(crate) type Batches = mpsc::Receiver<Result<Vec<RecordedEvent>, Failure>>;

/// How many events are handed on at once, and how many times that is read ahead.
const BATCH: usize = 1_024;
const AHEAD: usize = 4;

impl Source {
    /// Opens what is there; a store that is not there is not created.
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        if let Some(file) = EventFile::of(url) {
            return Ok(Self::File(file));
        }
        let store = open_existing(url).await?;
        Ok(Self::Store { url: url.to_owned(), store })
    }

    /// What people see of it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Store { url, .. } => shown(url),
            Self::File(file) => file.path.display().to_string(),
        }
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn Store>> {
        match self {
            Self::Store { store, .. } => Some(store),
            Self::File(_) => None,
        }
    }

    /// The selected events after a position, in the order of positions.
    pub(crate) fn read(&self, after: Position, select: &Select) -> Batches {
        let (sender, batches) = mpsc::channel(AHEAD);
        let select = select.clone();
        match self.clone() {
            Self::Store { store, .. } => {
                tokio::spawn(async move {
                    if let Err(error) = read_store(store, after, &select, &sender).await {
                        // Whoever reads may have gone.
                        let _ = sender.send(Err(error)).await;
                    }
                });
            }
            Self::File(file) => {
                // A thread of its own: at the end a runtime would wait for one that waits for
                // standard input.
                std::thread::spawn(move || read_file(&file, after, &select, &sender));
            }
        }
        batches
    }
}

async fn read_store(
    store: Arc<dyn Store>,
    after: Position,
    select: &Select,
    sender: &mpsc::Sender<Result<Vec<RecordedEvent>, Failure>>,
) -> Result<(), Failure> {
    let mut visible = Visible::of(&store);
    let events = in_order(&store, after, select)?;
    let mut batches = events.try_ready_chunks(BATCH);
    while let Some(batch) = batches.next().await {
        let batch = match batch {
            Ok(batch) => visible.filter(batch, select).await?,
            Err(TryReadyChunksError(batch, error)) => {
                let kept = visible.filter(batch, select).await?;
                let _ = sender.send(Ok(kept)).await;
                return Err(error.into());
            }
        };
        if sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The events that may be selected, in the order of positions; without such an order those of the
/// streams that are named, one after the other.
fn in_order(
    store: &Arc<dyn Store>,
    after: Position,
    select: &Select,
) -> Result<EventStream, Failure> {
    if store.capabilities().global_order {
        return Ok(store.read_all(ReadAll::default().with_filter(select.filter()).after(after)));
    }
    let Streams { ids, categories, prefix } = &select.streams;
    if ids.is_empty() || !categories.is_empty() || prefix.is_some() {
        return Err(Failure::usage(
            "this store keeps no order over its streams, so that they can be read one by one only: \
             name them by --stream",
        ));
    }
    let (store, ids) = (store.clone(), ids.clone());
    let streams = futures::stream::iter(ids);
    Ok(streams.flat_map(move |id| store.read_stream(&id, annals::ReadStream::default())).boxed())
}

/// Keeps from view what was truncated or deleted, where the store shows it until it has cleaned up.
struct Visible {
    store: Option<Arc<dyn Store>>,
    /// Where each stream begins.
    begins: HashMap<StreamId, Option<Version>>,
}

impl Visible {
    fn of(store: &Arc<dyn Store>) -> Self {
        let late = store.capabilities().removal == Removal::AfterCleanUp;
        Self { store: late.then(|| store.clone()), begins: HashMap::new() }
    }

    async fn filter(
        &mut self,
        events: Vec<RecordedEvent>,
        select: &Select,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            if select.matches(&event) && self.sees(&event).await? {
                kept.push(event);
            }
        }
        Ok(kept)
    }

    async fn sees(&mut self, event: &RecordedEvent) -> Result<bool, Failure> {
        let Some(store) = &self.store else { return Ok(true) };
        let begin = match self.begins.get(&event.stream) {
            Some(begin) => *begin,
            None => {
                let info = store.stream_info(&event.stream).await?;
                let begin = match info.state {
                    StreamState::Live => Some(info.first_version.unwrap_or(info.version.plus(1))),
                    _ => None,
                };
                self.begins.insert(event.stream.clone(), begin);
                begin
            }
        };
        Ok(begin.is_some_and(|begin| event.version >= begin))
    }
}

fn read_file(
    file: &EventFile,
    after: Position,
    select: &Select,
    sender: &mpsc::Sender<Result<Vec<RecordedEvent>, Failure>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let read = file.for_each_event(|event| {
        if event.position > after && select.matches(&event) {
            batch.push(event);
        }
        batch.len() < BATCH || sender.blocking_send(Ok(std::mem::take(&mut batch))).is_ok()
    });
    let _ = sender.blocking_send(Ok(batch));
    if let Err(error) = read {
        let _ = sender.blocking_send(Err(error));
    }
}

/// Opens a store that has to be there already, so that a name that was mistyped is an error, and not
/// a new store.
pub(crate) async fn open_existing(url: &str) -> Result<Arc<dyn Store>, Failure> {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let url = match scheme.as_str() {
        "sqlite" if !url.contains(":memory:") => with_parameter(url, "create", "false"),
        "dynamodb" => with_parameter(url, "create", "false"),
        "postgres" | "postgresql" => with_parameter(url, "migrate", "false"),
        _ => url.to_owned(),
    };
    Ok(annals::connect(&url).await?)
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use annals::{EventStore, EventStoreExt, ExpectedVersion, NewEvent, ReadAll};

    use super::*;

    /// What a store shows in reads of all until it has cleaned up.
    #[tokio::test]
    async fn what_was_removed_is_not_seen() {
        let store = annals::connect("memory:").await.unwrap();
        for stream in ["live-1", "truncated-1", "emptied-1", "deleted-1", "revived-1", "closed-1"] {
            let events = (0..4).map(|n| NewEvent::json("Numbered", &n).unwrap());
            store.append_to(stream, ExpectedVersion::Any, events).await.unwrap();
        }
        let before: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();
        let id = |text: &str| StreamId::new(text).unwrap();
        store.truncate(&id("truncated-1"), Version::new(3)).await.unwrap();
        store.truncate(&id("emptied-1"), Version::new(9)).await.unwrap();
        store.delete(&id("deleted-1"), ExpectedVersion::Any).await.unwrap();
        store.delete(&id("revived-1"), ExpectedVersion::Any).await.unwrap();
        let again = NewEvent::json("Numbered", &5).unwrap();
        store.append_to("revived-1", ExpectedVersion::Any, [again]).await.unwrap();
        store.tombstone(&id("closed-1"), ExpectedVersion::Any).await.unwrap();
        let after: Vec<_> = store.read_all(ReadAll::default()).try_collect().await.unwrap();

        let shown: Vec<_> = before.into_iter().chain(after.iter().skip(6).cloned()).collect();
        let mut visible = Visible { store: Some(store), begins: HashMap::new() };
        let seen = visible.filter(shown, &Select::default()).await.unwrap();
        assert_eq!(seen, after);
    }
}
