//! Appends, imports and removals, inside a write transaction.

use annals_core::{
    Append, Appended, ExpectedVersion, Position, RecordedEvent, Result, StreamId, StreamState,
    Version,
    adapter::{self, Plan, StreamHead, content_kinds, plan_append, plan_import, state_code},
};
use chrono::{SubsecRound, Utc};
use redb::{ReadableTable, Table, WriteTransaction};
use uuid::Uuid;

use crate::tables::{
    EVENTS, Event, Fault, Head, IDS, LAST_POSITION, NUMBERS, PLACES, SNAPSHOTS, STREAMS,
    first_version, head, last_position,
};

/// The tables that a change of a stream needs.
pub(crate) struct Streams<'a> {
    events: Table<'a, u64, Event>,
    places: Table<'a, (&'static str, u64), (u64, u128)>,
    ids: Table<'a, (&'static str, u128), u64>,
    streams: Table<'a, &'static str, Head>,
    numbers: Table<'a, &'static str, u64>,
}

impl adapter::Streams for Streams<'_> {
    type Error = Fault;

    fn head(&self, stream: &StreamId) -> Result<StreamHead, Fault> {
        head(&self.streams, stream.as_str())
    }

    fn place(
        &self,
        stream: &StreamId,
        version: Version,
    ) -> Result<Option<(Uuid, Position)>, Fault> {
        let found = self.places.get((stream.as_str(), version.get()))?;
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
    pub(crate) fn open(transaction: &'a WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            events: transaction.open_table(EVENTS)?,
            places: transaction.open_table(PLACES)?,
            ids: transaction.open_table(IDS)?,
            streams: transaction.open_table(STREAMS)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }

    pub(crate) fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>, Fault> {
        let heads = match plan_append(self, &appends)? {
            Plan::Replayed(answers) => return Ok(answers),
            Plan::Write(heads) => heads,
        };
        let now = Utc::now().trunc_subsecs(6);
        let mut answers = Vec::with_capacity(appends.len());
        for (append, head) in appends.into_iter().zip(heads) {
            let (base, count, mut position) = (head.version, append.count(), Position::START);
            for (n, event) in (1..).zip(append.events) {
                let event = event.recorded(append.stream.clone(), base.plus(n), position, now);
                position = self.record(&event)?;
            }
            answers.push(Appended::after(base, count, position, false)?);
        }
        Ok(answers)
    }

    pub(crate) fn import(&mut self, events: Vec<RecordedEvent>) -> Result<(), Fault> {
        let new = plan_import(self, events)?;
        new.iter().try_for_each(|event| self.record(event).map(|_| ()))
    }

    /// Writes an event at the next position.
    fn record(&mut self, event: &RecordedEvent) -> Result<Position, Fault> {
        let position = last_position(&self.numbers)?.plus(1).get();
        let (stream, version) = (event.stream.as_str(), event.version.get());
        let (id, kinds) = (event.id.as_u128(), content_kinds(&event.data, &event.metadata));
        let (data, metadata) = (event.data.bytes().as_ref(), event.metadata.bytes().as_ref());
        let (name, time) = (event.event_type.as_str(), event.recorded_at.timestamp_micros());
        let value = (stream, version, id, name, kinds, data, metadata, time);
        self.events.insert(position, value)?;
        self.places.insert((stream, version), (position, id))?;
        self.ids.insert((stream, id), version)?;
        self.numbers.insert(LAST_POSITION, position)?;
        let head = head(&self.streams, stream)?;
        let head = StreamHead { state: StreamState::Live, version: event.version, ..head };
        self.keep(stream, head)?;
        Ok(position.into())
    }

    fn keep(&mut self, stream: &str, head: StreamHead) -> Result<(), Fault> {
        if let Some(state) = state_code(head.state) {
            self.streams.insert(stream, (state, head.version.get(), head.deleted_at.get()))?;
        }
        Ok(())
    }

    pub(crate) fn truncate(&mut self, stream: &StreamId, before: Version) -> Result<(), Fault> {
        head(&self.streams, stream.as_str())?.check(stream, ExpectedVersion::Any)?;
        self.remove_before(stream.as_str(), before.get())
    }

    /// Removes all events of a stream, and its snapshot, and leaves the stream in this state.
    pub(crate) fn remove(
        transaction: &'a WriteTransaction,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<(), Fault> {
        let (mut streams, name) = (Self::open(transaction)?, stream.as_str());
        let head = head(&streams.streams, name)?;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        streams.remove_before(name, u64::MAX)?;
        streams.keep(name, StreamHead { state, deleted_at: head.version, ..head })?;
        transaction.open_table(SNAPSHOTS)?.remove(name)?;
        Ok(())
    }

    fn remove_before(&mut self, stream: &str, before: u64) -> Result<(), Fault> {
        for removed in self.places.extract_from_if((stream, 0)..(stream, before), |_, _| true)? {
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
}
