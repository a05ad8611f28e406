//! The log of a cluster, and what a node has of it.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

/// The revision of a tombstone, and the value of `$tb` in the metadata of a deleted stream.
pub(super) const GREATEST: u64 = i64::MAX as u64;
const METADATA: &str = "$metadata";
const TRUNCATE_BEFORE: &str = "$tb";

/// An event as a client sent it, or as the server made it.
#[derive(Clone, Debug)]
pub(super) struct Proposed {
    pub(super) id: Uuid,
    pub(super) event_type: String,
    pub(super) is_json: bool,
    pub(super) data: Bytes,
    pub(super) metadata: Bytes,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) stream: String,
    pub(super) revision: u64,
    pub(super) position: u64,
    /// In units of 100 ns since 1970.
    pub(super) created: i64,
    pub(super) event: Proposed,
}

/// Expected revisions as the server's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Any,
    StreamExists,
    /// -1 for no stream.
    Revision(i64),
}

impl Expected {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Any => -2,
            Self::StreamExists => -4,
            Self::Revision(revision) => revision,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// -1 if the stream has no event.
    pub(super) revision: i64,
    pub(super) position: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    WrongVersion(i64),
    Deleted,
}

#[derive(Debug, Default)]
struct StreamIndex {
    /// The record of each revision.
    records: Vec<usize>,
    tombstone: Option<usize>,
    /// The last revision of each id.
    ids: HashMap<Uuid, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: Vec<Record>,
    streams: HashMap<String, StreamIndex>,
    end: u64,
}

impl Log {
    /// Appends, and revives the stream if it was deleted.
    pub(super) fn append(
        &mut self,
        stream: &str,
        expected: Expected,
        events: Vec<Proposed>,
    ) -> Result<Written, Refused> {
        let view = self.view();
        if view.is_tombstoned(stream) {
            return Err(Refused::Deleted);
        }
        let was_deleted = view.is_deleted(stream);
        if let Some(revision) = view.judge(stream, expected, &events)? {
            let readable = view.readable(stream, revision);
            let revision = i64::try_from(revision).unwrap_or(i64::MAX);
            return Ok(Written { revision, position: readable.map(|record| record.position) });
        }
        let before = view.last_revision(stream);
        let mut position = None;
        for event in events {
            position = Some(self.push(stream, event));
        }
        let revision = self.view().last_revision(stream);
        if was_deleted {
            let first = u64::try_from(before + 1).unwrap_or_default();
            self.revive(stream, first);
        }
        if let Some(described) = stream.strip_prefix("$$") {
            self.revive_by_metadata(described);
        }
        // An append without events is a record, too, which no reader gets.
        Ok(Written { revision, position: position.or_else(|| Some(self.skip())) })
    }

    /// Writes `$tb` into the metadata of a stream that was deleted and has events again.
    fn revive(&mut self, stream: &str, first: u64) {
        let mut properties = self.view().properties(stream).unwrap_or_default();
        properties.insert(TRUNCATE_BEFORE.to_owned(), first.into());
        self.push_metadata(stream, &Value::Object(properties));
    }

    /// Other metadata for a deleted stream revive it.
    fn revive_by_metadata(&mut self, described: &str) {
        let view = self.view();
        let before = view.metadata_before_last(described);
        let was_deleted = before.is_some_and(|properties| {
            properties.get(TRUNCATE_BEFORE).and_then(Value::as_u64) == Some(GREATEST)
        });
        if was_deleted && !view.is_deleted(described) {
            let next = u64::try_from(view.last_revision(described) + 1).unwrap_or_default();
            self.revive(described, next);
        }
    }

    pub(super) fn delete(&mut self, stream: &str, expected: Expected) -> Result<u64, Refused> {
        let view = self.view();
        view.judge_removal(stream, expected)?;
        let exists = view.last_revision(stream) >= 0 || view.last(&metadata_of(stream)).is_some();
        if !exists {
            return Err(Refused::WrongVersion(-1));
        }
        Ok(self.push_metadata(stream, &serde_json::json!({ TRUNCATE_BEFORE: GREATEST })))
    }

    pub(super) fn tombstone(&mut self, stream: &str, expected: Expected) -> Result<u64, Refused> {
        self.view().judge_removal(stream, expected)?;
        let event = Proposed {
            id: Uuid::now_v7(),
            event_type: "$streamDeleted".to_owned(),
            is_json: false,
            data: Bytes::new(),
            metadata: Bytes::new(),
        };
        let index = self.records.len();
        let position = self.write(stream, GREATEST, event);
        self.streams.entry(stream.to_owned()).or_default().tombstone = Some(index);
        Ok(position)
    }

    /// Writes a small event.
    pub(super) fn fill(&mut self, stream: &str) {
        let event = Proposed {
            id: Uuid::now_v7(),
            event_type: "Filling".to_owned(),
            is_json: false,
            data: Bytes::new(),
            metadata: Bytes::new(),
        };
        self.push(stream, event);
    }

    fn push_metadata(&mut self, stream: &str, properties: &Value) -> u64 {
        let event = Proposed {
            id: Uuid::now_v7(),
            event_type: METADATA.to_owned(),
            is_json: true,
            data: properties.to_string().into(),
            metadata: Bytes::new(),
        };
        self.push(&metadata_of(stream), event)
    }

    fn push(&mut self, stream: &str, event: Proposed) -> u64 {
        let index = self.records.len();
        let streams = self.streams.entry(stream.to_owned()).or_default();
        let revision = streams.records.len() as u64;
        streams.records.push(index);
        streams.ids.insert(event.id, revision);
        self.write(stream, revision, event)
    }

    fn write(&mut self, stream: &str, revision: u64, event: Proposed) -> u64 {
        let position = self.skip();
        // Positions are bytes of the log, so there are numbers between two of them.
        self.end += (event.data.len() + event.metadata.len() + stream.len()) as u64;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = i64::try_from(now.as_nanos() / 100).unwrap_or_default();
        let stream = stream.to_owned();
        self.records.push(Record { stream, revision, position, created, event });
        position
    }

    /// The place of a record that no reader gets.
    fn skip(&mut self) -> u64 {
        /// What a record has besides its data.
        const HEADER: u64 = 100;
        let position = self.end + HEADER;
        self.end += HEADER;
        position
    }

    /// All of the log.
    pub(super) fn view(&self) -> View<'_> {
        View { log: self, until: self.records.len() }
    }

    /// The first records of the log, which a follower that lags has.
    pub(super) fn view_until(&self, until: usize) -> View<'_> {
        View { log: self, until: until.min(self.records.len()) }
    }
}

pub(super) fn metadata_of(stream: &str) -> String {
    format!("$${stream}")
}

/// The log as far as a node has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    log: &'a Log,
    pub(super) until: usize,
}

impl<'a> View<'a> {
    pub(super) fn records(self) -> &'a [Record] {
        self.log.records.get(..self.until).unwrap_or_default()
    }

    fn revisions(self, stream: &str) -> &'a [usize] {
        let all = self.log.streams.get(stream).map(|index| index.records.as_slice());
        let all = all.unwrap_or_default();
        all.get(..all.partition_point(|index| *index < self.until)).unwrap_or_default()
    }

    pub(super) fn is_tombstoned(self, stream: &str) -> bool {
        let described = stream.strip_prefix("$$").unwrap_or(stream);
        let index = self.log.streams.get(described).and_then(|index| index.tombstone);
        index.is_some_and(|index| index < self.until)
    }

    /// The last revision, hidden or not. -1 without any event.
    pub(super) fn last_revision(self, stream: &str) -> i64 {
        i64::try_from(self.revisions(stream).len()).unwrap_or(i64::MAX) - 1
    }

    fn last(self, stream: &str) -> Option<&'a Record> {
        self.revisions(stream).last().and_then(|index| self.log.records.get(*index))
    }

    fn properties(self, stream: &str) -> Option<Map<String, Value>> {
        properties(self.last(&metadata_of(stream))?)
    }

    fn metadata_before_last(self, stream: &str) -> Option<Map<String, Value>> {
        let revisions = self.revisions(&metadata_of(stream));
        let index = revisions.len().checked_sub(2).and_then(|at| revisions.get(at))?;
        properties(self.log.records.get(*index)?)
    }

    pub(super) fn is_deleted(self, stream: &str) -> bool {
        let before = self.properties(stream);
        let before = before.and_then(|it| it.get(TRUNCATE_BEFORE).and_then(Value::as_u64));
        before == Some(GREATEST)
    }

    /// Events below this revision are hidden.
    pub(super) fn hidden_before(self, stream: &str) -> u64 {
        let length = self.revisions(stream).len() as u64;
        if stream.starts_with("$$") {
            return length.saturating_sub(1);
        }
        let Some(properties) = self.properties(stream) else { return 0 };
        let number = |name| properties.get(name).and_then(Value::as_u64);
        let before = number(TRUNCATE_BEFORE).unwrap_or(0);
        let count = number("$maxCount").filter(|count| *count > 0);
        before.max(count.map_or(0, |count| length.saturating_sub(count)))
    }

    pub(super) fn readable(self, stream: &str, revision: u64) -> Option<&'a Record> {
        if revision < self.hidden_before(stream) {
            return None;
        }
        let index = self.revisions(stream).get(usize::try_from(revision).ok()?)?;
        self.log.records.get(*index)
    }

    /// The first revision of a stream that can be read, and the one behind its last.
    pub(super) fn range(self, stream: &str) -> (u64, u64) {
        (self.hidden_before(stream), self.revisions(stream).len() as u64)
    }

    /// `None` if the events are to be written; the last of their revisions if they are known.
    fn judge(
        self,
        stream: &str,
        expected: Expected,
        events: &[Proposed],
    ) -> Result<Option<u64>, Refused> {
        let current = self.last_revision(stream);
        let ids = self.log.streams.get(stream).map(|index| &index.ids);
        let known = |event: &Proposed| ids.and_then(|ids| ids.get(&event.id)).copied();
        let wrong = Err(Refused::WrongVersion(current));
        let deleted = self.is_deleted(stream);
        match expected {
            Expected::Any | Expected::StreamExists => {
                if expected == Expected::StreamExists {
                    if deleted {
                        return Err(Refused::Deleted);
                    }
                    if current < 0 && self.last(&metadata_of(stream)).is_none() {
                        return wrong;
                    }
                }
                let mut last = None;
                for (index, event) in events.iter().enumerate() {
                    match known(event) {
                        Some(revision) => last = Some(revision),
                        // The first id decides for all.
                        None if index == 0 => return Ok(None),
                        None => return wrong,
                    }
                }
                Ok(last)
            }
            Expected::Revision(revision) if revision == current => Ok(None),
            Expected::Revision(revision) if revision > current => wrong,
            Expected::Revision(revision) => {
                let mut last = None;
                for (event, at) in events.iter().zip(revision + 1..) {
                    let is_same = self.id_at(stream, at) == Some(event.id);
                    if !is_same {
                        // A deleted stream counts as none. The ids go first.
                        let reviving = deleted && revision < 0 && last.is_none();
                        return if reviving { Ok(None) } else { wrong };
                    }
                    last = u64::try_from(at).ok();
                }
                if events.is_empty() && !(deleted && revision < 0) {
                    return wrong;
                }
                Ok(last)
            }
        }
    }

    fn id_at(self, stream: &str, revision: i64) -> Option<Uuid> {
        let index = self.revisions(stream).get(usize::try_from(revision).ok()?)?;
        self.log.records.get(*index).map(|record| record.event.id)
    }

    fn judge_removal(self, stream: &str, expected: Expected) -> Result<(), Refused> {
        if self.is_tombstoned(stream) {
            return Err(Refused::Deleted);
        }
        let (current, deleted) = (self.last_revision(stream), self.is_deleted(stream));
        match expected {
            Expected::StreamExists if deleted => return Err(Refused::Deleted),
            Expected::StreamExists if current < 0 && self.last(&metadata_of(stream)).is_none() => {}
            Expected::Any | Expected::StreamExists => return Ok(()),
            Expected::Revision(-1) if deleted => return Ok(()),
            Expected::Revision(revision) if revision == current => return Ok(()),
            Expected::Revision(_) => {}
        }
        Err(Refused::WrongVersion(current))
    }
}

fn properties(record: &Record) -> Option<Map<String, Value>> {
    if !record.event.is_json {
        return None;
    }
    serde_json::from_slice(&record.event.data).ok()
}
