//! Appends: what they expect, and the items that they write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use annals_core::{
    Append, Appended, Error, ErrorKind, NewEvent, Position, ReadStream, Result, StreamState,
    adapter::{self, Backoff, Pages},
};
use chrono::Utc;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    codec,
    head::Head,
    item::EventsItem,
    read::StreamPages,
    shared::Shared,
    table::MOST_ITEMS,
    writer::{AppendOutcome, NewItem},
};

/// The most bytes of packed events in an item. DynamoDB takes 409,600 bytes, with the key and the
/// names of the attributes.
const MOST_PACKED: usize = 400_000;
/// The first and the longest pause before an append that others have overtaken is tried again.
const OVERTAKEN_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// Writes all the appends, or none, to streams that the caller has locked.
pub(crate) async fn append_locked(
    shared: &Arc<Shared>,
    appends: &[Append],
) -> Result<Vec<Appended>> {
    let began = Instant::now();
    let mut backoff = Backoff::new(OVERTAKEN_PAUSE.0, OVERTAKEN_PAUSE.1);
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
        let mut heads = try_join_all(heads).await?;
        match replayed(shared, appends, &mut heads).await {
            Ok(Some(answers)) => return Ok(answers),
            Ok(None) => {}
            // A presumed end is good enough to write, because the write then fails if it is old. To
            // refuse the append, read the streams.
            Err(_) if presumed.iter().any(Option::is_some) => {
                presumed.fill(None);
                continue;
            }
            Err(error) => {
                let retry_for = shared.options.retry_for;
                if began.elapsed() < retry_for && have_changed(shared, appends, &heads).await? {
                    continue;
                }
                return Err(error);
            }
        }
        if let Some(answers) = write_after(shared, appends, &heads).await? {
            return Ok(answers);
        }
        presumed.fill(None);
        if began.elapsed() >= shared.options.retry_for {
            let message = "other appends to the stream came first for as long as this one was \
                           tried; try again";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        sleep(backoff.next_pause()).await;
    }
}

/// Writes all the appends if the streams still have these ends; `None` if other appends came first.
pub(crate) async fn write_after(
    shared: &Shared,
    appends: &[Append],
    heads: &[Head],
) -> Result<Option<Vec<Appended>>> {
    match shared.writer.write(new_items(appends, heads)?).await? {
        AppendOutcome::Written(positions) => answers(shared, appends, heads, &positions).map(Some),
        AppendOutcome::Overtaken => Ok(None),
    }
}

/// Whether one of several streams has another end by now. The ends were read one after the other: they
/// can refuse an append only if all of them were the ends at one moment.
async fn have_changed(shared: &Shared, appends: &[Append], heads: &[Head]) -> Result<bool> {
    if appends.len() == 1 {
        return Ok(false);
    }
    let loads = appends.iter().map(|append| Head::load(&shared.table, &append.stream));
    let now = try_join_all(loads).await?;
    Ok(now.iter().zip(heads).any(|(now, then)| now.stream != then.stream))
}

/// The answers if the appends were written before; `None` if they are to be written. If a stream has
/// changed meanwhile, its head is the new one.
async fn replayed(
    shared: &Arc<Shared>,
    appends: &[Append],
    heads: &mut [Head],
) -> Result<Option<Vec<Appended>>> {
    let mut judged = Vec::with_capacity(appends.len());
    for (append, head) in appends.iter().zip(heads) {
        judged.push((head.stream, replayed_one(shared, append, head).await?));
    }
    adapter::all_or_none(appends, &judged)
}

async fn replayed_one(
    shared: &Arc<Shared>,
    append: &Append,
    head: &mut Head,
) -> Result<Option<Appended>> {
    loop {
        let retry_at_end = || head.stream.retry_at_end(append, head.last_id);
        let Some(base) = head.stream.compare_after(append, retry_at_end)? else { return Ok(None) };
        let options = ReadStream::default().with_from(base.plus(1)).with_limit(append.count());
        let mut pages = StreamPages::new(shared.clone(), append.stream.clone(), options);
        let mut found = Vec::with_capacity(append.events.len());
        loop {
            let page = pages.next_page().await?;
            found.extend(page.events.iter().map(|e| Ok((e.version, e.id, e.position))));
            if !page.more {
                break;
            }
        }
        let is_whole = found.len() == append.events.len();
        let written: Result<_> = adapter::written_after(append, base, found);
        let written = written?;
        if written.is_some() || is_whole {
            return head.stream.compared(append, written);
        }
        // The events that are missing were removed, perhaps after the head was read. If the stream was
        // deleted or tombstoned since, the append is not a conflict with the old head.
        let now = Head::load(&shared.table, &append.stream).await?;
        if now.stream == head.stream {
            return head.stream.compared(append, None);
        }
        *head = now;
    }
}

/// The items to write for all the appends together.
fn new_items(appends: &[Append], heads: &[Head]) -> Result<Vec<NewItem>> {
    let recorded_at = record_time();
    let mut items = Vec::with_capacity(appends.len());
    for (append, head) in appends.iter().zip(heads) {
        items.extend(items_of(append, head, recorded_at)?);
    }
    // One item of the transaction is the slot.
    if items.len() >= MOST_ITEMS {
        let message = format!(
            "the append takes {} items of DynamoDB, and a transaction takes at most {MOST_ITEMS}, \
             one of which is for the store itself; append to fewer streams or smaller events",
            items.len()
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(items)
}

/// Now, in microseconds since 1970, but later than every answer before. So two appends of the same
/// events by this process differ, and each finds out which of them was written.
fn record_time() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = Utc::now().timestamp_micros();
    let next = |last: i64| now.max(last + 1);
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
    last.map_or(now, next)
}

/// The items of one append: in most cases one.
fn items_of(append: &Append, head: &Head, recorded_at: i64) -> Result<Vec<NewItem>> {
    let base = head.stream.version.get();
    let deleted_at = match head.stream.state {
        StreamState::Live => head.stream.deleted_at.get(),
        _ => base,
    };
    let mut first = base + 1;
    let mut items = Vec::with_capacity(1);
    for (new_events, body) in bodies(&append.events, recorded_at)? {
        let events = EventsItem {
            first,
            last: first + new_events.len() as u64 - 1,
            append_last: base + append.count(),
            position: None,
            entry_index: 0,
            deleted_at,
            kept_from: first,
            body: Some(body),
        };
        first = events.last + 1;
        // If the first item finds its key as expected, the keys after it are free as well.
        let condition = if items.is_empty() { head.condition() } else { Head::MISSING.condition() };
        let (stream, after) = (append.stream.clone(), head.position);
        items.push(NewItem::new(stream, events, condition, after, new_events));
    }
    Ok(items)
}

/// The events, packed into as many bodies as it takes: halves the events until each part fits,
/// since only compressing them tells their size.
fn bodies(events: &[NewEvent], recorded_at: i64) -> Result<Vec<(&[NewEvent], Vec<u8>)>> {
    let body = codec::pack(recorded_at, events)?;
    // A single event always fits, because its size is limited.
    if body.len() <= MOST_PACKED || events.len() == 1 {
        return Ok(vec![(events, body)]);
    }
    let (first, second) = events.split_at(events.len() / 2);
    let mut all = bodies(first, recorded_at)?;
    all.extend(bodies(second, recorded_at)?);
    Ok(all)
}

/// The answers to appends that were written, whose streams now have new ends.
fn answers(
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
