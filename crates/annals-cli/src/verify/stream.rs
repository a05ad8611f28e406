//! Reads one stream from its first version to its end, and compares it with what a read of all gave.

use std::sync::Arc;

use annals::{
    Position, ReadAll, ReadStream, RecordedEvent, Removal, Store, StreamId, TryStreamExt, Version,
};

use super::{
    census::{Digest, Tally, chain},
    findings::Findings,
};
use crate::failure::Failure;

/// A stream to read.
pub(super) struct Reading {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: StreamId,
    /// What the read of all gave of the stream, if it had events of it.
    pub(super) tally: Option<Tally>,
    /// Where the read of all ended.
    pub(super) end: Position,
    pub(super) findings: Findings,
}

/// What was read.
pub(super) struct Read {
    pub(super) events: u64,
    /// The events that were appended after the read of all had ended.
    pub(super) late: Option<Late>,
}

/// Events of a stream after the end of the read of all.
pub(super) struct Late {
    pub(super) id: StreamId,
    pub(super) first: Version,
    pub(super) last: Version,
    pub(super) last_position: Position,
    digest: Digest,
    /// The digest of those that a further read of all gave.
    found: Digest,
    buffer: Vec<u8>,
}

/// A range of versions.
type Versions = (Version, Version);

impl Reading {
    pub(super) async fn run(self) -> Result<Read, Failure> {
        let Self { store, id, tally, end, findings } = &self;
        let ordered = store.capabilities().global_order;
        let mut events = store.read_stream(id, ReadStream::default());
        let (mut digest, mut count, mut buffer): (Digest, u64, _) = (0, 0, Vec::new());
        let (mut read, mut position) = (0, Position::START);
        let (mut first, mut version): (Option<Version>, Option<Version>) = (None, None);
        let (mut hidden, mut late): (Option<Versions>, Option<Late>) = (None, None);
        while let Some(event) = events.try_next().await? {
            read += 1;
            if ordered && event.position <= position {
                findings.broken(|| {
                    format!(
                        "version {} of {id}: its position is not after that of the version before",
                        event.version
                    )
                });
            }
            if let Some(before) = version.filter(|before| before.plus(1) != event.version) {
                let is = event.version;
                findings.broken(|| {
                    format!(
                        "version {is} of {id} comes after version {before} in a read of the stream"
                    )
                });
            }
            (position, version) = (event.position, Some(event.version));
            first.get_or_insert(event.version);
            match tally {
                Some(tally) if (tally.first..=tally.last).contains(&event.version) => {
                    digest = chain(digest, &event, &mut buffer);
                    count += 1;
                }
                // Without an order nobody can tell these from events that were appended since.
                _ if !ordered => {}
                _ if event.position > *end => {
                    late.get_or_insert_with(|| Late::begin(&event)).add(&event);
                }
                _ => {
                    let (_, last) = hidden.get_or_insert((event.version, event.version));
                    *last = event.version;
                }
            }
        }
        if let Some(versions) = hidden {
            findings.broken(|| missing(id, versions));
        }
        self.compare(count, digest).await?;
        self.compare_info(first, version).await?;
        Ok(Read { events: read, late })
    }

    /// Compares the events that both reads gave.
    async fn compare(&self, count: u64, digest: Digest) -> Result<(), Failure> {
        let Self { store, id, tally, findings, .. } = self;
        let Some(tally) = tally.filter(|tally| tally.digest != digest) else { return Ok(()) };
        let info = store.stream_info(id).await?;
        let is_removed = info.first_version.is_none_or(|first| first > tally.first);
        if is_removed && !self.is_in_all(&tally).await? {
            findings.note(|| format!("{id} was truncated or deleted while it was verified"));
        } else {
            findings.broken(|| {
                format!(
                    "{id}: the {count} events of a read of the stream differ from versions {} to {} of \
                     a read of all",
                    tally.first, tally.last
                )
            });
        }
        Ok(())
    }

    /// Whether a read of all still gives the first event that it gave, although the stream says that
    /// the event was removed. A store may do so until a clean-up, if it declares that.
    async fn is_in_all(&self, tally: &Tally) -> Result<bool, Failure> {
        let capabilities = self.store.capabilities();
        if capabilities.removal == Removal::AfterCleanUp || !capabilities.global_order {
            return Ok(false);
        }
        let options = ReadAll::default().after(tally.position.minus(1)).with_limit(1);
        let event = self.store.read_all(options).try_next().await?;
        Ok(event.is_some_and(|event| (&event.stream, event.version) == (&self.id, tally.first)))
    }

    /// Compares the versions that the read gave with those of `stream_info`.
    async fn compare_info(
        &self,
        first: Option<Version>,
        last: Option<Version>,
    ) -> Result<(), Failure> {
        let Self { store, id, findings, .. } = self;
        let info = store.stream_info(id).await?;
        if let Some(last) = last.filter(|last| info.version < *last) {
            let says = info.version;
            findings
                .broken(|| format!("{id}: stream_info says version {says}, but there is {last}"));
        }
        let Some(begins) = info.first_version else { return Ok(()) };
        if let Some(first) = first.filter(|first| begins < *first) {
            findings.broken(|| {
                format!(
                    "{id}: stream_info says that it begins with version {begins}, but a read of the \
                     stream begins with {first}"
                )
            });
        }
        let last = last.unwrap_or(Version::NONE);
        if last >= info.version {
            return Ok(());
        }
        // Either more was appended since, or the read did not go to the end.
        let options = ReadStream::default().with_from(last.plus(1)).with_limit(1);
        let more = store.read_stream(id, options).try_next().await?;
        if more.is_none() && store.stream_info(id).await? == info {
            let says = info.version;
            findings.broken(|| {
                format!(
                    "{id}: stream_info says version {says}, but a read of the stream ends with {last}"
                )
            });
        }
        Ok(())
    }
}

impl Late {
    fn begin(event: &RecordedEvent) -> Self {
        Self {
            id: event.stream.clone(),
            first: event.version,
            last: event.version,
            last_position: event.position,
            digest: 0,
            found: 0,
            buffer: Vec::new(),
        }
    }

    fn add(&mut self, event: &RecordedEvent) {
        self.digest = chain(self.digest, event, &mut self.buffer);
        (self.last, self.last_position) = (event.version, event.position);
    }

    /// Before a read of all.
    pub(super) fn begin_again(&mut self) {
        self.found = 0;
    }

    /// A read of all gave this event of the stream.
    pub(super) fn found(&mut self, event: &RecordedEvent) {
        if (self.first..=self.last).contains(&event.version) {
            self.found = chain(self.found, event, &mut self.buffer);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.found == self.digest
    }

    pub(super) fn missing(&self) -> String {
        missing(&self.id, (self.first, self.last))
    }
}

fn missing(id: &StreamId, (first, last): Versions) -> String {
    let versions = match first == last {
        true => format!("version {first}"),
        false => format!("events from version {first} to {last}"),
    };
    format!("{id}: a read of all lacks {versions}, which a read of the stream has")
}
