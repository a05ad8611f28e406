//! Appends.
//!
//! The database decides whether an expectation holds, in the statement that writes. If it does not
//! hold, the answer says how the stream was found, and core judges that, as for every store.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_core::{
    Append, Appended, Error, ErrorKind, ExpectedVersion, NewEvent, Position, Result, Version,
    adapter,
};
use annals_postgres_shared::resend::{Attempts, WriteSession};

use crate::{
    batch::{Batch, Found, Outcome},
    database::Database,
    error::{id_taken, internal, runtime, runtime_ended, written},
};

/// The most streams of one append. Each takes a lock.
const MOST_STREAMS: usize = 1_000;
/// The longest pause, in milliseconds, before an append is sent again because another one got in its
/// way. Each has a random one: two appends that wait for each other would otherwise meet again.
const LONGEST_PAUSE: u64 = 10;

/// Writes appends, several of them all or none. If the future is dropped, an append that has begun is
/// written all the same.
pub(crate) async fn append(
    database: &Arc<Database>,
    appends: Vec<Append>,
) -> Result<Vec<Appended>> {
    let runtime = runtime()?;
    if appends.len() > MOST_STREAMS {
        let message = format!(
            "the append has {} streams; this store takes at most {MOST_STREAMS}",
            appends.len()
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    database.check_write(appends.iter().flat_map(|append| {
        append.events.iter().map(|event| (&append.stream, event.data(), event.metadata()))
    }))?;
    let timeout = database.connections.pool.options().get_acquire_timeout();
    let turn = tokio::time::timeout(timeout, database.writers.clone().acquire_owned()).await;
    let turn = turn.map_err(|elapsed| {
        let message = "other appends wait for the server; try again";
        Error::new(ErrorKind::Busy, message).with_source(elapsed)
    })?;
    let types = appends.iter().flat_map(|append| &append.events).map(NewEvent::event_type);
    let dotnet_types =
        database.dotnet_types.of(&database.connections, &database.sql, types).await?;
    let writer = Writer { database: database.clone(), session: WriteSession::default() };
    let written = runtime.spawn(async move {
        let _turn = turn;
        writer.write(&appends, dotnet_types).await
    });
    written.await.unwrap_or_else(|_| Err(runtime_ended().with_outcome_unknown()))
}

/// Writes the appends of one call.
struct Writer {
    database: Arc<Database>,
    session: WriteSession,
}

impl Writer {
    async fn write(
        mut self,
        appends: &[Append],
        dotnet_types: Vec<Arc<str>>,
    ) -> Result<Vec<Appended>> {
        let mut batch = Batch::new(dotnet_types);
        for (index, append) in appends.iter().enumerate() {
            batch.stream(&append.stream, expectation(append.expected));
            for (offset, event) in (1..).zip(&append.events) {
                let (data, metadata) = (event.data(), event.metadata());
                let place = (index, offset);
                batch.event(&self.database, place, event.id(), event.event_type(), data, metadata);
            }
        }
        let sent = self.send(&batch).await;
        if self.session.outcome_unknown || matches!(sent, Ok(Outcome::Written(..))) {
            self.database.notifier.committed();
        }
        let outcome = sent.map_err(|error| self.session.mark(written(error)))?;
        self.session.give_back();
        match outcome {
            Outcome::Written(bases, numbers) => {
                let mut numbers = numbers.into_iter();
                let mut answers = Vec::with_capacity(appends.len());
                for (append, base) in appends.iter().zip(bases) {
                    let last = numbers.nth(append.events.len().saturating_sub(1));
                    let last = last.ok_or_else(|| internal("fewer numbers than events"))?;
                    let position = Position::from_i64(last);
                    answers.push(Appended::after(base, append.count(), position, false)?);
                }
                Ok(answers)
            }
            Outcome::NotWritten(found) => judge(appends, &found),
            Outcome::IdTaken => Err(id_taken()),
            Outcome::Again => {
                let message = "other programs append to the same streams all the time; try again";
                Err(self.session.mark(Error::new(ErrorKind::Busy, message)))
            }
        }
    }

    /// Sends a batch, and sends it again as long as another transaction gets in the way.
    async fn send(&mut self, batch: &Batch<'_>) -> Result<Outcome> {
        let connections = &self.database.connections;
        let mut attempts = Attempts::default();
        let begun = Instant::now();
        loop {
            let mut connection = self.session.connection(connections, &mut attempts).await?;
            let sent = batch.send(&mut connection, &self.database);
            let answer = connections.with_timeout(sent).await;
            match self.session.answered(connections, connection, answer, &mut attempts) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Ok(Outcome::Again))
                    if begun.elapsed() < self.database.patience =>
                {
                    let pause = Duration::from_millis(fastrand::u64(0..LONGEST_PAUSE));
                    tokio::time::sleep(pause).await;
                }
                ControlFlow::Break(done) => return done,
            }
        }
    }
}

/// The number by which the function knows an expectation.
fn expectation(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::Any => -1,
        ExpectedVersion::StreamExists => -2,
        ExpectedVersion::NoStream => 0,
        ExpectedVersion::Exact(version) => version.to_i64(),
    }
}

/// The answer to appends that were not written: they are retries, or conflicts.
fn judge(appends: &[Append], found: &[Found]) -> Result<Vec<Appended>> {
    let mut judged = Vec::with_capacity(appends.len());
    for (append, found) in appends.iter().zip(found) {
        let Found { head, is_other_type, replay, .. } = *found;
        if is_other_type {
            return Err(other_type(append, head.version));
        }
        let after = head.compare_after(append, || replay.map(|(base, _)| base))?;
        let replayed = match (after, replay) {
            (Some(after), Some((base, number))) if after == base => {
                let position = Position::from_i64(number);
                Some(Appended::after(base, append.count(), position, true)?)
            }
            _ => None,
        };
        let replayed = match after {
            Some(_) => head.compared(append, replayed)?,
            None => None,
        };
        judged.push((head, replayed));
    }
    adapter::all_or_none(appends, &judged)?
        .ok_or_else(|| internal("an append was not written although its expectations hold"))
}

/// The error for a stream whose Guid belongs to a stream of another type.
fn other_type(append: &Append, version: Version) -> Error {
    if matches!(append.expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE))
    {
        return Error::lost_race(&append.stream, append.expected, version);
    }
    let message = "the Guid of this stream belongs to a stream of another type";
    Error::new(ErrorKind::InvalidInput, message).with_stream(&append.stream)
}
