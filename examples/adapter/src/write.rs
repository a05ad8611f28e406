//! What a write transaction changes.

use annals_core::{
    Position, RecordedEvent, Result, StreamId, Version,
    adapter::{self, RecordChange, RecordKey, StreamHead, encode_event, state_code},
};
use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};
use uuid::Uuid;

use crate::tables::{
    EVENTS, Fault, Head, IDS, LAST_POSITION, NUMBERS, PLACES, RECORDS, STREAMS, corrupt,
    first_version, head, last_position,
};

/// The tables that a change of a stream needs.
pub(crate) struct Streams<'a> {
    events: Table<'a, u64, &'static [u8]>,
    places: Table<'a, (&'static str, u64), (u64, u128)>,
    ids: Table<'a, (&'static str, u128), u64>,
    streams: Table<'a, &'static str, Head>,
    numbers: Table<'a, &'static str, u64>,
    records: Table<'a, (&'static str, &'static str), &'static [u8]>,
}

impl adapter::Streams for Streams<'_> {
    type Error = Fault;

    fn head(&self, stream: &StreamId) -> Result<StreamHead, Fault> {
        head(&self.streams, stream.as_str())
    }

    fn place(&self, stream: &StreamId, at: Version) -> Result<Option<(Uuid, Position)>, Fault> {
        let found = self.places.get((stream.as_str(), at.get()))?;
        Ok(found.map(|place| (Uuid::from_u128(place.value().1), place.value().0.into())))
    }

    fn version_of(&self, stream: &StreamId, id: Uuid) -> Result<Option<Version>, Fault> {
        let found = self.ids.get((stream.as_str(), id.as_u128()))?;
        Ok(found.map(|version| version.value().into()))
    }

    fn first_version(&self, stream: &StreamId) -> Result<Option<Version>, Fault> {
        first_version(&self.places, stream.as_str())
    }
}

impl<'a> Streams<'a> {
    /// Changes a snapshot, a checkpoint or a lease.
    pub(crate) fn change_record<T>(
        &mut self,
        key: &RecordKey,
        change: impl Fn(Option<Bytes>, StreamHead) -> Result<(RecordChange, T)>,
    ) -> Result<T, Fault> {
        let name = (key.kind(), key.name());
        let record = self.records.get(name)?.map(|record| Bytes::copy_from_slice(record.value()));
        let (change, answer) = change(record, head(&self.streams, key.name())?)?;
        match change {
            RecordChange::Keep => {}
            RecordChange::Put(bytes) => drop(self.records.insert(name, bytes.as_ref())?),
            RecordChange::Remove => drop(self.records.remove(name)?),
        }
        Ok(answer)
    }

    pub(crate) fn open(transaction: &'a WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            events: transaction.open_table(EVENTS)?,
            places: transaction.open_table(PLACES)?,
            ids: transaction.open_table(IDS)?,
            streams: transaction.open_table(STREAMS)?,
            numbers: transaction.open_table(NUMBERS)?,
            records: transaction.open_table(RECORDS)?,
        })
    }
}

impl adapter::StreamsMut for Streams<'_> {
    fn last_position(&self) -> Result<Position, Fault> {
        last_position(&self.numbers)
    }

    fn insert(&mut self, event: RecordedEvent) -> Result<(), Fault> {
        let (stream, version) = (event.stream.as_str(), event.version.get());
        let (position, id) = (event.position.get(), event.id.as_u128());
        self.events.insert(position, encode_event(&event).as_ref())?;
        self.places.insert((stream, version), (position, id))?;
        self.ids.insert((stream, id), version)?;
        self.numbers.insert(LAST_POSITION, position)?;
        Ok(())
    }

    fn set_head(&mut self, stream: &StreamId, head: StreamHead) -> Result<(), Fault> {
        let state = state_code(head.state).ok_or_else(|| corrupt("a missing stream has a head"))?;
        self.streams.insert(stream.as_str(), (state, head.version.get(), head.deleted_at.get()))?;
        Ok(())
    }

    fn remove_before(&mut self, stream: &StreamId, before: Version) -> Result<(), Fault> {
        let stream = stream.as_str();
        let range = (stream, 0)..(stream, before.get());
        for removed in self.places.extract_from_if(range, |_, _| true)? {
            let (key, place) = removed?;
            let (version, (position, id)) = (key.value().1, place.value());
            self.events.remove(position)?;
            // A later event may have the same id.
            if self.ids.get((stream, id))?.is_some_and(|last| last.value() == version) {
                self.ids.remove((stream, id))?;
            }
        }
        Ok(())
    }

    fn remove_snapshot(&mut self, stream: &StreamId) -> Result<(), Fault> {
        let key = RecordKey::Snapshot(stream.clone());
        self.records.remove((key.kind(), key.name()))?;
        Ok(())
    }
}
