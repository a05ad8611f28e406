//! Streams as a whole: what is known of them, their list, and the removal of events.

use std::sync::Arc;

use annals_core::{
    ExpectedVersion, Position, Result, StreamId, StreamInfo, StreamState, Version,
    adapter::StreamHead,
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    connections::Connected,
    error::{corrupt, driver, is_race},
    sql::query,
};

/// A stream as it was found.
#[derive(Clone, Copy, Debug)]
pub struct StoredStream {
    pub head: StreamHead,
    /// The first version that can be read, if there is one.
    pub first: Option<Version>,
}

impl StoredStream {
    pub fn info(&self) -> StreamInfo {
        self.head.info(self.first)
    }
}

/// The streams of a store.
pub trait Streams: Connected {
    /// The statement that gives a stream.
    fn head(&self) -> &Arc<str>;

    /// The statement that gives names and streams after a name, up to a number.
    fn list(&self) -> &Arc<str>;

    /// The statement that gives the version of a stream at a position, if it has events up to there.
    fn version_at(&self) -> &Arc<str>;

    /// Decodes a stream, whose columns begin at the column `at`.
    fn decode(row: &PgRow, at: usize) -> Result<StoredStream>;

    /// Removes the events of a stream up to a version from what is read, and sets its state if one is
    /// given. Changes nothing and returns false if the stream is no longer as `head` says: then it has
    /// to be judged again.
    fn hide(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        state: Option<StreamState>,
        up_to: Version,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Deletes what was hidden.
    fn clean_up(self: &Arc<Self>, stream: &StreamId) -> impl Future<Output = Result<()>> + Send;
}

pub async fn load<S: Streams>(store: &S, stream: &StreamId) -> Result<StoredStream> {
    let statement = || query(store.head()).bind(stream.as_str());
    let rows = store.connections().rows(statement).await.map_err(driver)?;
    match rows.first() {
        Some(row) => S::decode(row, 0),
        None => Ok(StoredStream { head: StreamHead::MISSING, first: None }),
    }
}

/// The version that a stream had at a position; `None` if it has no event up to there.
pub async fn version_at<S: Streams>(
    store: &S,
    stream: &StreamId,
    position: Position,
) -> Result<Option<Version>> {
    let statement = || query(store.version_at()).bind(stream.as_str()).bind(position.to_i64());
    let rows = store.connections().rows(statement).await.map_err(driver)?;
    let version = rows.first().map(|row| row.try_get(0)).transpose().map_err(driver)?;
    Ok(version.map(Version::from_i64))
}

/// The streams after a stream id, by the bytes of their ids.
pub async fn list<S: Streams>(
    store: &S,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, StreamInfo)>> {
    // Every stream id is greater than the empty text.
    let after = after.map_or("", StreamId::as_str);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = || query(store.list()).bind(after).bind(limit);
    let rows = store.connections().rows(statement).await.map_err(driver)?;
    let stream = |row: &PgRow| {
        let name: &str = row.try_get(0).map_err(driver)?;
        let stream = StreamId::new(name)
            .map_err(|e| corrupt("a stream has an illegal name").with_source(e))?;
        let stored = S::decode(row, 1).map_err(|e| e.with_stream(&stream))?;
        Ok((stream, stored.info()))
    };
    rows.iter().map(stream).collect()
}

/// Removes the events of a stream before a version.
pub async fn truncate<S: Streams>(
    store: &Arc<S>,
    stream: &StreamId,
    before: Version,
) -> Result<()> {
    loop {
        let head = load(&**store, stream).await?.head;
        head.check(stream, ExpectedVersion::Any)?;
        if head.state == StreamState::Missing {
            return Ok(());
        }
        if hide(store, stream, &head, None, before.minus(1)).await? {
            return store.clean_up(stream).await;
        }
    }
}

/// Removes all events of a stream, and leaves it deleted or tombstoned.
pub async fn close<S: Streams>(
    store: &Arc<S>,
    stream: &StreamId,
    expected: ExpectedVersion,
    state: StreamState,
) -> Result<()> {
    loop {
        let head = load(&**store, stream).await?.head;
        head.check(stream, expected)?;
        if head.state == StreamState::Missing && state == StreamState::Deleted {
            return Ok(());
        }
        if hide(store, stream, &head, Some(state), head.version).await? {
            return store.clean_up(stream).await;
        }
    }
}

async fn hide<S: Streams>(
    store: &Arc<S>,
    stream: &StreamId,
    head: &StreamHead,
    state: Option<StreamState>,
    up_to: Version,
) -> Result<bool> {
    loop {
        match store.hide(stream, head, state, up_to).await {
            Err(error) if is_race(&error) => tokio::task::yield_now().await,
            done => return done.map_err(driver),
        }
    }
}
