//! Judging an append, and writing it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use annals_core::{
    Append, Appended, Error, ErrorKind,
    ExpectedVersion::{Any, StreamExists},
    NewEvent, Position, ReadStream, Result, StreamState, Version,
    adapter::{Pages, Verdict},
};
use chrono::Utc;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    codec,
    commit::{Outcome, Planned},
    head::Head,
    item::Batch,
    read::StreamPages,
    store::Shared,
    table::MOST_ITEMS,
};

/// What an item may hold of packed events. DynamoDB takes 400 KB, with the key and the names of
/// attributes: 409,600 bytes.
const MOST_PACKED: usize = 400_000;
/// The longest pause before an append that others have overtaken is tried again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Writes all the appends, or none.
pub(crate) async fn append(shared: &Arc<Shared>, appends: &[Append]) -> Result<Vec<Appended>> {
    let _locks = shared.locks.lock(appends).await;
    let began = Instant::now();
    let mut presumed: Vec<_> = appends.iter().map(|append| shared.heads.presume(append)).collect();
    loop {
        let heads = appends.iter().zip(&presumed).map(async |(append, head)| match head {
            Some(head) => Ok::<_, Error>(*head),
            None => {
                let head = Head::load(&shared.table, &append.stream).await?;
                shared.heads.learn(&append.stream, head);
                Ok(head)
            }
        });
        let heads = try_join_all(heads).await?;
        match judge(shared, appends, &heads).await {
            Ok(None) => {}
            // What is presumed is good enough to write, since that finds out; not to refuse.
            Err(_) if presumed.iter().any(Option::is_some) => {
                presumed.fill(None);
                continue;
            }
            Ok(Some(replayed)) => return Ok(replayed),
            Err(error) => return Err(error),
        }
        let planned = plan(appends, &heads)?;
        match shared.commit(planned).await? {
            Outcome::Written(positions) => return answer(shared, appends, &heads, &positions),
            Outcome::Overtaken => {}
        }
        // Now there is nothing to presume any more.
        presumed.fill(None);
        if began.elapsed() >= shared.options.retry_for {
            let message = "others kept appending to the stream for as long as it was tried";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        sleep(PAUSE.mul_f64(fastrand::f64())).await;
    }
}

/// The answers where all of it has happened before; none where it is to be written.
async fn judge(
    shared: &Arc<Shared>,
    appends: &[Append],
    heads: &[Head],
) -> Result<Option<Vec<Appended>>> {
    let mut replayed = Vec::with_capacity(appends.len());
    for (append, head) in appends.iter().zip(heads) {
        replayed.push(judge_one(shared, append, head).await?);
    }
    let all: Option<Vec<_>> = replayed.iter().copied().collect();
    if all.is_none()
        && let Some(index) = replayed.iter().position(Option::is_some)
        && let (Some(append), Some(head)) = (appends.get(index), heads.get(index))
    {
        // Written before, but not together with the others: not this append.
        return Err(lost_race(append, head));
    }
    Ok(all)
}

fn lost_race(append: &Append, head: &Head) -> Error {
    Error::lost_race(&append.stream, append.expected, head.stream.version)
}

async fn judge_one(shared: &Arc<Shared>, append: &Append, head: &Head) -> Result<Option<Appended>> {
    match head.stream.judge(append.expected) {
        Verdict::Closed => Err(Error::stream_closed(&append.stream)),
        Verdict::Conflict => Err(lost_race(append, head)),
        Verdict::RetryOrConflict(base) => {
            let written = written_after(shared, append, base).await?;
            written.map(Some).ok_or_else(|| lost_race(append, head))
        }
        // `Exact` and `NoStream` hold: the same ids again are other events. Under `Any` and
        // `StreamExists` they are a retry, which is looked for at the end of the stream only.
        Verdict::Write if matches!(append.expected, Any | StreamExists) => {
            let last = append.events.last().map(NewEvent::id);
            match head.stream.version.get().checked_sub(append.count()) {
                Some(base) if head.last_id == last => {
                    written_after(shared, append, Version::new(base)).await
                }
                _ => Ok(None),
            }
        }
        Verdict::Write => Ok(None),
    }
}

/// The answer of the append, if its ids stand right after that version.
async fn written_after(
    shared: &Arc<Shared>,
    append: &Append,
    base: Version,
) -> Result<Option<Appended>> {
    let options = ReadStream::default().with_from(base.plus(1)).with_limit(append.count());
    let mut pages = StreamPages::new(shared.clone(), append.stream.clone(), options);
    let mut expected = (base.get() + 1..).zip(&append.events);
    let mut last = Position::START;
    let mut left = append.count();
    loop {
        let page = pages.next_page().await?;
        for found in page.events {
            match expected.next() {
                Some((version, event))
                    if found.version.get() == version && found.id == event.id() =>
                {
                    (last, left) = (found.position, left.saturating_sub(1));
                }
                _ => return Ok(None),
            }
        }
        if left == 0 {
            return Appended::after(base, append.count(), last, true).map(Some);
        }
        if !page.more {
            return Ok(None);
        }
    }
}

/// The items to be written, for all the appends together.
fn plan(appends: &[Append], heads: &[Head]) -> Result<Vec<Planned>> {
    let recorded_at = now();
    let mut planned = Vec::with_capacity(appends.len());
    for (append, head) in appends.iter().zip(heads) {
        planned.extend(parts(append, head, recorded_at)?);
    }
    // One more is the log's.
    if planned.len() >= MOST_ITEMS {
        let message = format!(
            "the append takes {} items; one transaction of DynamoDB takes at most {MOST_ITEMS}, \
             one of which is the store's: use fewer streams or smaller events",
            planned.len()
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(planned)
}

/// Microseconds since 1970, no two the same: who sends the same events twice at once must be able to
/// tell which of them was written.
fn now() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = Utc::now().timestamp_micros();
    let next = |last: i64| now.max(last + 1);
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
    last.map_or(now, next)
}

/// The items of one append: most often one.
fn parts(append: &Append, head: &Head, recorded_at: i64) -> Result<Vec<Planned>> {
    let base = head.stream.version.get();
    let deleted_at = match head.stream.state {
        StreamState::Live => head.stream.deleted_at.get(),
        _ => base,
    };
    let mut first = base + 1;
    let mut parts = Vec::with_capacity(1);
    for (events, body) in bodies(&append.events, recorded_at)? {
        let batch = Batch {
            first,
            last: first + events.len() as u64 - 1,
            append_last: base + append.count(),
            position: None,
            entry: 0,
            deleted_at,
            kept_from: first,
            body: Some(body),
        };
        first = batch.last + 1;
        // The others stand behind the first, where nothing can be if it is alone.
        let condition = if parts.is_empty() { head.condition() } else { Head::MISSING.condition() };
        parts.push(Planned::new(append.stream.clone(), batch, condition, head.position, events));
    }
    Ok(parts)
}

/// The events, packed in as many items as it takes: how far they can be compressed, nobody knows
/// before it was tried.
fn bodies(events: &[NewEvent], recorded_at: i64) -> Result<Vec<(&[NewEvent], Vec<u8>)>> {
    let body = codec::pack(recorded_at, events)?;
    // An event that is alone fits in any case: its size is limited.
    if body.len() <= MOST_PACKED || events.len() == 1 {
        return Ok(vec![(events, body)]);
    }
    let (some, others) = events.split_at(events.len() / 2);
    let mut all = bodies(some, recorded_at)?;
    all.extend(bodies(others, recorded_at)?);
    Ok(all)
}

fn answer(
    shared: &Shared,
    appends: &[Append],
    heads: &[Head],
    positions: &[Option<u64>],
) -> Result<Vec<Appended>> {
    let mut positions = positions.iter();
    let mut answers = Vec::with_capacity(appends.len());
    for (append, head) in appends.iter().zip(heads) {
        let last = positions.next().copied().flatten();
        let position = last.map_or(Position::START, Position::new);
        let base = head.stream.version;
        answers.push(Appended::after(base, append.count(), position, false)?);
        let mut now = *head;
        now.stream.deleted_at = match head.stream.state {
            StreamState::Live => head.stream.deleted_at,
            _ => base,
        };
        now.stream.state = StreamState::Live;
        now.stream.version = base.plus(append.count());
        now.position = last;
        now.last_id = append.events.last().map(NewEvent::id);
        shared.heads.learn(&append.stream, now);
    }
    Ok(answers)
}
