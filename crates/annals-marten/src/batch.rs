//! Sends events to the function `append` of annals' schema, and reads its answer.

use std::{borrow::Cow, sync::Arc};

use annals_core::{
    EventType, Payload, StreamId, StreamState, Version,
    adapter::{self, StreamHead},
};
use annals_postgres_shared::{connections::PooledConnection, error::Failure};
use chrono::{DateTime, Utc};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    database::Database,
    error::{corrupt, internal},
    json::{self, Headers},
    sql::query,
};

/// The events of one statement, with their streams.
pub(crate) struct Batch<'a> {
    names: Vec<&'a str>,
    expectations: Vec<i64>,
    owners: Vec<i32>,
    offsets: Vec<i64>,
    ids: Vec<Uuid>,
    types: Vec<&'a str>,
    flags: Vec<i16>,
    bodies: Vec<Cow<'a, str>>,
    /// The bytes of data and metadata, if they are kept.
    data: Vec<Option<&'a [u8]>>,
    metadata: Vec<Option<&'a [u8]>>,
    headers: Vec<Headers>,
    /// Empty: now.
    times: Vec<DateTime<Utc>>,
    dotnet_types: Vec<Arc<str>>,
}

/// What the function did.
pub(crate) enum Outcome {
    /// The version of each stream before its events, and the numbers of the events.
    Written(Vec<Version>, Vec<i64>),
    /// Nothing was written. The streams were found like this.
    NotWritten(Vec<Found>),
    /// Another transaction got in the way, and nothing was written.
    Again,
    /// The store keeps event ids unique, and one is there already. Nothing was written.
    IdTaken,
}

/// How a stream was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) head: StreamHead,
    /// Whether the Guid of the stream belongs to a stream of another type.
    pub(crate) is_other_type: bool,
    /// Whether no event of the stream can be read.
    pub(crate) is_empty: bool,
    /// If the append was written before: the version before it, and the number of its last event.
    pub(crate) replay: Option<(Version, i64)>,
}

impl<'a> Batch<'a> {
    /// Of this many events, whose .NET types are these.
    pub(crate) fn new(dotnet_types: Vec<Arc<str>>) -> Self {
        Self {
            names: Vec::new(),
            expectations: Vec::new(),
            owners: Vec::new(),
            offsets: Vec::new(),
            ids: Vec::new(),
            types: Vec::new(),
            flags: Vec::new(),
            bodies: Vec::new(),
            data: Vec::new(),
            metadata: Vec::new(),
            headers: Vec::new(),
            times: Vec::new(),
            dotnet_types,
        }
    }

    /// Adds a stream. The expectation is one of the function's.
    pub(crate) fn stream(&mut self, stream: &'a StreamId, expectation: i64) {
        self.names.push(stream.as_str());
        self.expectations.push(expectation);
    }

    /// Adds an event of the stream with this index, `offset` events after its version.
    pub(crate) fn event(
        &mut self,
        database: &Database,
        (stream, offset): (usize, u64),
        id: Uuid,
        event_type: &'a EventType,
        data: &'a Payload,
        metadata: &'a Payload,
    ) {
        self.owners.push(i32::try_from(stream + 1).unwrap_or(i32::MAX));
        self.offsets.push(i64::try_from(offset).unwrap_or(i64::MAX));
        self.ids.push(id);
        self.types.push(event_type.as_str());
        self.flags.push(i16::from(adapter::content_kinds(data, metadata)));
        self.bodies.push(json::body(data));
        let kept = |payload: &'a Payload| database.keeps_bytes.then(|| &payload.bytes()[..]);
        self.data.push(kept(data));
        self.metadata.push(kept(metadata));
        self.headers.push(json::headers(metadata, database.columns));
    }

    /// Says when the event that was added last was recorded.
    pub(crate) fn recorded_at(&mut self, time: DateTime<Utc>) {
        self.times.push(time);
    }

    pub(crate) async fn send(
        &self,
        connection: &mut PooledConnection,
        database: &Database,
    ) -> Result<Outcome, Failure> {
        let of = |part: fn(&Headers) -> &Option<String>| {
            self.headers.iter().map(|headers| part(headers).as_deref()).collect::<Vec<_>>()
        };
        let statement = query(&database.sql.append)
            .bind(database.lock_key)
            .bind(&self.names)
            .bind(&self.expectations)
            .bind(&self.owners)
            .bind(&self.offsets)
            .bind(&self.ids)
            .bind(&self.types)
            .bind(self.dotnet_types.iter().map(|name| &**name).collect::<Vec<_>>())
            .bind(&self.flags)
            .bind(self.bodies.iter().map(|body| &**body).collect::<Vec<_>>())
            .bind(&self.data)
            .bind(&self.metadata)
            .bind(of(|headers| &headers.headers))
            .bind(of(|headers| &headers.correlation))
            .bind(of(|headers| &headers.causation))
            .bind(&self.times);
        let row = connection.run_one(statement).await?;
        match row.try_get::<i16, _>(0)? {
            1 => {
                let (versions, numbers): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(7)?);
                if numbers.len() != self.ids.len() || versions.len() != self.names.len() {
                    return Err(internal("not as many numbers as events").into());
                }
                let versions = versions.into_iter().map(Version::from_i64).collect();
                Ok(Outcome::Written(versions, numbers))
            }
            2 => Ok(Outcome::Again),
            3 => Ok(Outcome::IdTaken),
            _ => self.found(&row).map(Outcome::NotWritten),
        }
    }

    fn found(&self, row: &PgRow) -> Result<Vec<Found>, Failure> {
        let states: Vec<Option<i16>> = row.try_get(1)?;
        let versions: Vec<i64> = row.try_get(2)?;
        let deletions: Vec<i64> = row.try_get(3)?;
        let are_empty: Vec<bool> = row.try_get(4)?;
        let bases: Vec<Option<i64>> = row.try_get(5)?;
        let replays: Vec<Option<i64>> = row.try_get(6)?;
        let mut found = Vec::with_capacity(self.names.len());
        let columns = states.into_iter().zip(versions).zip(deletions).zip(are_empty);
        for ((((state, version), deletion), is_empty), replay) in
            columns.zip(bases.into_iter().zip(replays))
        {
            let replay = replay.0.zip(replay.1);
            found.push(Found {
                head: head(state.map(|state| state % OTHER_TYPE), version, deletion)?,
                is_other_type: state == Some(OTHER_TYPE),
                is_empty,
                replay: replay.map(|(base, number)| (Version::from_i64(base), number)),
            });
        }
        if found.len() != self.names.len() {
            return Err(internal("not as many answers as streams").into());
        }
        Ok(found)
    }
}

/// The state by which the function says that the Guid of a stream belongs to one of another type.
const OTHER_TYPE: i16 = 3;

/// The head of a stream, from the columns of the view `streams`.
pub(crate) fn head(
    state: Option<i16>,
    version: i64,
    deleted_at: i64,
) -> annals_core::Result<StreamHead> {
    let state = match state {
        None => StreamState::Missing,
        Some(code) => adapter::state_of_code(code.into())
            .ok_or_else(|| corrupt("unknown state of a stream"))?,
    };
    let (version, deleted_at) = (Version::from_i64(version), Version::from_i64(deleted_at));
    Ok(StreamHead { state, version, deleted_at })
}
