//! Where a copy goes to.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use annals::{Position, RecordedEvent, Store, StreamId, SubscriberId};
use futures::future::try_join_all;

use crate::{
    failure::Failure,
    place::{EventFile, Source},
    url::shown,
};

/// How many events, and bytes of payloads, are imported at once: enough for the work of a commit not
/// to matter, and a moment's work to lose by Ctrl-C.
const MOST_EVENTS: usize = 5_000;
const MOST_BYTES: usize = 8 << 20;
/// The same where an import may take an append for each event.
const MOST_APPENDS: usize = 500;
/// How long to wait before an import that failed in passing is tried again; to repeat one is safe.
const PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1_600];

#[derive(Debug)]
pub(crate) enum Target {
    Store(StoreTarget),
    File(FileTarget),
}

#[derive(Debug)]
pub(crate) struct StoreTarget {
    url: String,
    pub(crate) store: Arc<dyn Store>,
    /// How many streams are written at once.
    lanes: usize,
    most_events: usize,
    most_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct FileTarget {
    file: EventFile,
    /// Standard output where there is none.
    open: Option<File>,
    lines: Vec<u8>,
}

impl Target {
    /// Opens it, and creates what is missing.
    pub(crate) async fn open(url: &str, lanes: usize) -> Result<Self, Failure> {
        if let Some(file) = EventFile::of(url) {
            return Ok(Self::File(FileTarget { file, open: None, lines: Vec::new() }));
        }
        let store = annals::connect(url).await?;
        Ok(Self::Store(StoreTarget::new(url, store, lanes)))
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Store(target) => shown(&target.url),
            Self::File(target) => target.file.path.display().to_string(),
        }
    }

    /// How many events, and bytes of payloads, one import takes.
    pub(crate) fn batch(&self) -> (usize, usize) {
        match self {
            Self::Store(target) => (target.most_events, target.most_bytes),
            Self::File(_) => (MOST_EVENTS, MOST_BYTES),
        }
    }

    pub(crate) async fn write(
        &mut self,
        source: &Source,
        events: Vec<RecordedEvent>,
    ) -> Result<(), Failure> {
        match self {
            Self::Store(target) => target.write(source, events).await,
            Self::File(target) => tokio::task::block_in_place(|| target.write(&events)),
        }
    }

    /// Notes that everything up to a position is written.
    pub(crate) async fn note(
        &mut self,
        copy: &SubscriberId,
        position: Position,
    ) -> Result<(), Failure> {
        match self {
            Self::Store(target) if target.store.capabilities().checkpoints => {
                target.store.save_checkpoint(copy, position).await?;
                Ok(())
            }
            // Begins again, and leaves what it finds written as it is.
            Self::Store(_) => Ok(()),
            Self::File(target) => tokio::task::block_in_place(|| target.sync()),
        }
    }
}

impl StoreTarget {
    fn new(url: &str, store: Arc<dyn Store>, lanes: usize) -> Self {
        let capabilities = store.capabilities();
        let most = if capabilities.exact_import { MOST_EVENTS } else { MOST_APPENDS };
        let most_events = capabilities.max_append_events.min(most);
        let most_bytes = capabilities.max_append_bytes.min(MOST_BYTES);
        Self { url: url.to_owned(), store, lanes, most_events, most_bytes }
    }

    async fn write(&self, source: &Source, events: Vec<RecordedEvent>) -> Result<(), Failure> {
        if self.lanes == 1 {
            return self.import(source, events).await;
        }
        let mut lanes = vec![Vec::new(); self.lanes];
        for event in events {
            let lane = lane(&event.stream, self.lanes);
            if let Some(lane) = lanes.get_mut(lane) {
                lane.push(event);
            }
        }
        try_join_all(lanes.into_iter().map(|events| self.import(source, events))).await?;
        Ok(())
    }

    async fn import(&self, source: &Source, events: Vec<RecordedEvent>) -> Result<()> {
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let error = match self.store.import(events.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.is_retryable() || error.outcome_unknown() {
                let Some(pause) = pauses.next() else { return Err(error.into()) };
                tokio::time::sleep(pause).await;
                continue;
            }
            let Some(conflict) = error.conflict() else { return Err(error.into()) };
            let stream = conflict.stream.clone();
            if !self.has_followed(source, &stream).await? {
                return Err(differs(&stream, error));
            }
        }
    }

    /// Where the source has removed the events that the target has, or should have next: removes
    /// them here as well, so that the stream goes on behind them. False where that is not so.
    async fn has_followed(&self, source: &Source, stream: &StreamId) -> Result<bool, Failure> {
        let Some(source) = source.store() else { return Ok(false) };
        let there = source.stream_info(stream).await?;
        let here = self.store.stream_info(stream).await?;
        let begins = there.first_version.unwrap_or(there.version.plus(1));
        let behind = here.first_version.is_some() && begins > here.version.plus(1);
        if behind {
            self.store.truncate(stream, begins).await?;
        }
        Ok(behind)
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

fn differs(stream: &StreamId, error: annals::Error) -> Failure {
    let message = format!(
        "the target has other events in {stream} than the source; `annals verify` shows which: copy \
         into an empty store, or leave this stream out"
    );
    Failure::conflict(message).because(&error)
}

fn lane(stream: &StreamId, lanes: usize) -> usize {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(stream);
    usize::try_from(hash % lanes as u64).unwrap_or(0)
}

impl FileTarget {
    /// Where a file that is there ends: the position and the id of its last event. What a copy that
    /// was killed has left of a line is cut off.
    pub(crate) fn resume(&mut self) -> Result<Option<RecordedEvent>> {
        if self.file.is_stdio() {
            return Ok(None);
        }
        let path = self.file.path.clone();
        let failure = |e: &io::Error| Failure::new(format!("{}: {e}", path.display()));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let mut file = file.map_err(|e| failure(&e))?;
        let (mut last, mut whole) = (None, 0);
        let length = file.metadata().map_err(|e| failure(&e))?.len();
        let torn = length > 0 && !ends_with_newline(&path, length).map_err(|e| failure(&e))?;
        if length > 0 {
            let format = self.file.format;
            self.file.for_each_line(|text, number, end| {
                let is_torn = torn && end == length;
                match format.parse(text).map(crate::lines::Entry::into_recorded) {
                    Ok(Ok(event)) if !is_torn => {
                        (last, whole) = (Some(event), end);
                        Ok(true)
                    }
                    // The last line was cut off.
                    _ if is_torn => Ok(false),
                    _ => Err(self.file.bad_line(number, "no event: this is no export of annals")),
                }
            })?;
        }
        file.set_len(whole).map_err(|e| failure(&e))?;
        file.seek(SeekFrom::End(0)).map_err(|e| failure(&e))?;
        self.open = Some(file);
        Ok(last)
    }

    fn write(&mut self, events: &[RecordedEvent]) -> Result<()> {
        self.lines.clear();
        for event in events {
            self.file.format.write(event, &mut self.lines)?;
        }
        let written = match &mut self.open {
            Some(file) => file.write_all(&self.lines),
            None => io::stdout().write_all(&self.lines),
        };
        written.map_err(|e| self.file.failure(&e))
    }

    fn sync(&mut self) -> Result<()> {
        match &self.open {
            Some(file) => file.sync_data().map_err(|e| self.file.failure(&e)),
            None => io::stdout().flush().map_err(|e| self.file.failure(&e)),
        }
    }
}

fn ends_with_newline(path: &Path, length: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(length - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}
