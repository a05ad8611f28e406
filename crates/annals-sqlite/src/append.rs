//! Judging an append, and writing it.

use annals_core::{
    Append, Appended, Error,
    ExpectedVersion::{Any, StreamExists},
    NewEvent, Position, StreamId, StreamState, Version,
    adapter::Verdict,
};
use rusqlite::params;

use crate::{
    error::{Failure, corrupt},
    rows::{self, Head},
    session::Session,
};

impl Session<'_> {
    /// Writes an append, or nothing: a refusal leaves the transaction as it was.
    pub(crate) fn append(&mut self, append: &Append) -> Result<Appended, Failure> {
        let head = self.head(&append.stream)?;
        match self.replayed(append, &head)? {
            Some(replayed) => Ok(replayed),
            None => self.write(append, head),
        }
    }

    /// Writes all the appends, or none. Judges all of them before it writes the first.
    pub(crate) fn append_multi(&mut self, appends: &[Append]) -> Result<Vec<Appended>, Failure> {
        let mut judged = Vec::with_capacity(appends.len());
        for append in appends {
            let head = self.head(&append.stream)?;
            judged.push((append, head, self.replayed(append, &head)?));
        }
        if let Some(replayed) = judged.iter().map(|(.., replayed)| *replayed).collect() {
            return Ok(replayed);
        }
        if let Some((append, head, _)) = judged.iter().find(|(.., replayed)| replayed.is_some()) {
            // Written before, but not together with the others: not this append.
            let actual = head.head.version;
            return Err(Error::lost_race(&append.stream, append.expected, actual).into());
        }
        judged.into_iter().map(|(append, head, _)| self.write(append, head)).collect()
    }

    /// What an append answered when it was written before; none where it is to be written.
    fn replayed(&mut self, append: &Append, head: &Head) -> Result<Option<Appended>, Failure> {
        let conflict = || {
            let actual = head.head.version;
            Failure::from(Error::lost_race(&append.stream, append.expected, actual))
        };
        match head.head.judge(append.expected) {
            Verdict::Closed => Err(Error::stream_closed(&append.stream).into()),
            Verdict::Conflict => Err(conflict()),
            Verdict::RetryOrConflict(base) => {
                self.written_after(append, head, base)?.map(Some).ok_or_else(conflict)
            }
            // `Exact` and `NoStream` hold: the same ids again are other events. Under `Any` and
            // `StreamExists` they are a retry, which is looked for at the end of the stream only:
            // no index on ids is worth what it costs every append.
            Verdict::Write if matches!(append.expected, Any | StreamExists) => {
                if head.last_id.is_none() || head.last_id != append.events.last().map(NewEvent::id)
                {
                    return Ok(None);
                }
                let Some(base) = head.head.version.get().checked_sub(append.count()) else {
                    return Ok(None);
                };
                self.written_after(append, head, base.into())
            }
            Verdict::Write => Ok(None),
        }
    }

    /// The answer of the append, if its ids stand right after that version.
    fn written_after(
        &self,
        append: &Append,
        head: &Head,
        base: Version,
    ) -> Result<Option<Appended>, Failure> {
        let Some(stream) = head.row else { return Ok(None) };
        let count = append.count();
        let mut statement = self.connection.prepare_cached(&self.database.sql.ids_after)?;
        let mut rows =
            statement.query(params![stream, base.to_i64(), Version::new(count).to_i64()])?;
        let mut last = Position::START;
        for (version, event) in (base.get() + 1..).zip(&append.events) {
            let Some(row) = rows.next()? else { return Ok(None) };
            let found = Version::from_i64(row.get(0)?);
            if found.get() != version || rows::uuid(row.get_ref(2)?) != Some(event.id()) {
                return Ok(None);
            }
            last = Position::from_i64(row.get(1)?);
        }
        Ok(Some(Appended::after(base, count, last, true)?))
    }

    fn write(&mut self, append: &Append, mut head: Head) -> Result<Appended, Failure> {
        let base = head.head.version;
        let appended = |last| Appended::after(base, append.count(), last, false);
        // An append that has no answer must not be begun.
        appended(self.last)?;
        let stream = self.writable(&append.stream, &head)?;
        for (version, event) in (base.get() + 1..).zip(&append.events) {
            let payloads = [event.data(), event.metadata()];
            let (id, event_type) = (event.id(), event.event_type());
            self.insert(stream, version.into(), self.now, id, event_type, payloads)?;
            head.last_id = Some(event.id());
        }
        head.row = Some(stream);
        head.head.version = base.plus(append.count());
        head.head.state = StreamState::Live;
        self.heads.put(&append.stream, head);
        self.has_appended = true;
        Ok(appended(self.last)?)
    }

    /// The row of a stream that is live from now on.
    pub(crate) fn writable(&self, stream: &StreamId, head: &Head) -> Result<i64, Failure> {
        let sql = &self.database.sql;
        match (head.row, head.head.state) {
            (Some(row), StreamState::Live) => Ok(row),
            (Some(row), StreamState::Deleted) => {
                self.connection.prepare_cached(&sql.revive_stream)?.execute([row])?;
                Ok(row)
            }
            (None, _) => self.insert_stream(stream),
            (Some(_), _) => Err(corrupt("a closed stream was judged open").into()),
        }
    }
}
