//! Writing what was planned: by itself where there is no order over all streams, else together with
//! a slot of the log, which appends that wait at the same time share.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals_core::{Error, ErrorKind, NewEvent, Result, StreamId};
use tokio::sync::oneshot;

use crate::{
    codec,
    error::{corrupt, internal},
    item::{Batch, Entry, Events, Item, Key, SLOT, Slot, Summary},
    log::Log,
    store::Shared,
    table::{Change, Condition, MOST_ITEMS, Table, Written},
};

/// Events up to this length stand in the log, too, so that who reads over all streams need not fetch
/// them one by one. Their slot is charged as one kilobyte in any case, if it is not shared.
pub(crate) const MOST_IN_LOG: usize = 850;
/// How many bytes of types an entry of the log lists.
const MOST_TYPES: usize = 200;
/// The most bytes of one transaction, some of which are for what is around the events; DynamoDB
/// takes 4 MB.
const MOST_BYTES: usize = 3_900_000;
/// Appends that share a slot: beyond this, one that others overtake makes too many wait.
const MOST_SHARING: usize = 32;

/// One item to be written.
#[derive(Debug)]
pub(crate) struct Planned {
    stream: StreamId,
    batch: Batch,
    condition: Condition,
    /// The position of the event before, if any.
    after: Option<u64>,
    summary: Summary,
}

/// What became of a plan.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is written; the positions of the last event of each append.
    Written(Vec<Option<u64>>),
    /// Somebody else wrote to one of the streams before: nothing is written.
    Overtaken,
}

impl Planned {
    pub(crate) fn new(
        stream: StreamId,
        batch: Batch,
        condition: Condition,
        after: Option<u64>,
        events: &[NewEvent],
    ) -> Self {
        let mut types: Vec<_> = events.iter().map(|event| event.event_type().clone()).collect();
        types.sort_unstable();
        types.dedup();
        if types.iter().map(|t| t.as_str().len()).sum::<usize>() > MOST_TYPES {
            types.clear();
        }
        let size = events.iter().map(codec::packed_size).sum::<usize>() as u64;
        Self { stream, batch, condition, after, summary: Summary { size, types } }
    }

    fn count(&self) -> u64 {
        (self.batch.last + 1).saturating_sub(self.batch.first)
    }

    fn bytes(&self) -> usize {
        /// The key, the versions, and the entry of the log.
        const AROUND: usize = 2_000;
        self.batch.body.as_ref().map_or(0, Vec::len) + AROUND
    }

    fn change(&self) -> Change {
        Change::Put(self.batch.to_item(&self.stream), self.condition.clone())
    }

    fn entry(&self) -> Entry {
        let Batch { first, last, .. } = self.batch;
        let events = match &self.batch.body {
            Some(body) if body.len() <= MOST_IN_LOG => Events::Here(first, body.clone()),
            _ => Events::There(self.summary.clone()),
        };
        Entry { stream: self.stream.clone(), first, last, events }
    }

    /// Whether the item that is there is the one that was to be written: an earlier try has been
    /// successful then, and its answer was lost. The position tells it from any other, or where there
    /// is none, the time of recording.
    fn is(&self, found: &Item) -> bool {
        let ours = self.batch.to_item(&self.stream);
        ["e", "p", "b"].iter().all(|name| ours.get(*name) == found.get(*name))
    }
}

/// The position of the last event of each append.
fn positions(planned: &[Planned]) -> Vec<Option<u64>> {
    let ends = planned.iter().filter(|planned| planned.batch.last == planned.batch.append_last);
    ends.map(|planned| planned.batch.position_of(planned.batch.last)).collect()
}

impl Shared {
    /// Writes what was planned, or nothing.
    pub(crate) async fn commit(&self, planned: Vec<Planned>) -> Result<Outcome> {
        let Some(log) = &self.log else {
            let outcome = write_alone(&self.table, &planned).await;
            if let Ok(Outcome::Written(_)) = outcome {
                self.notifier.appended(planned.iter().map(|planned| &planned.stream), None);
            }
            return outcome;
        };
        let (reply, outcome) = oneshot::channel();
        log.enqueue(Unit { planned, reply });
        outcome.await.unwrap_or_else(|gone| {
            let message = "the runtime that wrote the append has shut down";
            let error = Error::new(ErrorKind::Unavailable, message).with_source(gone);
            Err(error.with_outcome_unknown())
        })
    }
}

/// Without a log: one item costs one request, and as little as DynamoDB can charge.
async fn write_alone(table: &Table, planned: &[Planned]) -> Result<Outcome> {
    let written = match planned {
        [one] => vec![table.put(&one.batch.to_item(&one.stream), &one.condition).await?],
        several => table.transact(&several.iter().map(Planned::change).collect::<Vec<_>>()).await?,
    };
    let is_ours = |(written, planned): (&Written, &Planned)| match written {
        Written::Done => None,
        Written::Refused(found) => Some(planned.is(found)),
    };
    let mut refused = written.iter().zip(planned).filter_map(is_ours);
    // All or nothing: one that an earlier try has written stands for all.
    Ok(match refused.next() {
        Some(ours) if !(ours || refused.any(|ours| ours)) => Outcome::Overtaken,
        _ => Outcome::Written(positions(planned)),
    })
}

/// Appends that are written together or not at all, and who waits for that.
#[derive(Debug)]
pub(crate) struct Unit {
    planned: Vec<Planned>,
    reply: oneshot::Sender<Result<Outcome>>,
}

/// Units that wait, and how many tasks write.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Unit>,
    writers: usize,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that writes, and counts as a writer until it finds that nobody waits.
struct Writer {
    log: Arc<Log>,
    counts: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        // Its runtime has shut down. Where it was the last, those who wait are told.
        let mut state = self.log.queue.state();
        state.writers -= 1;
        if state.writers == 0 {
            state.waiting.clear();
        }
    }
}

impl Log {
    /// Hands a unit to a task, which goes on even where nobody waits for it any more: a slot that was
    /// taken is then used, and holds up no reader.
    fn enqueue(self: &Arc<Self>, unit: Unit) {
        let mut state = self.queue.state();
        state.waiting.push_back(unit);
        if state.writers < self.writers {
            state.writers += 1;
            tokio::spawn(Writer { log: self.clone(), counts: true }.run());
        }
    }

    /// Units for one transaction: as many as fit, each with streams of its own. Where nobody waits,
    /// the caller no longer counts as a writer: whoever comes next starts another.
    fn take(&self) -> Vec<Unit> {
        let mut state = self.queue.state();
        let mut group: Vec<Unit> = Vec::new();
        let (mut items, mut events, mut bytes) = (1, 0, 0);
        let mut streams = HashSet::new();
        while group.len() < MOST_SHARING
            && let Some(unit) = state.waiting.front()
        {
            items += unit.planned.len();
            events += unit.planned.iter().map(Planned::count).sum::<u64>();
            bytes += unit.planned.iter().map(Planned::bytes).sum::<usize>();
            let fits = items <= MOST_ITEMS && events <= SLOT && bytes <= MOST_BYTES;
            let apart = unit.planned.iter().all(|planned| !streams.contains(&planned.stream));
            if !(group.is_empty() || fits && apart) {
                break;
            }
            streams.extend(unit.planned.iter().map(|planned| planned.stream.clone()));
            group.extend(state.waiting.pop_front());
        }
        if group.is_empty() {
            state.writers -= 1;
        }
        group
    }
}

impl Writer {
    async fn run(mut self) {
        loop {
            let group = self.log.take();
            if group.is_empty() {
                self.counts = false;
                return;
            }
            self.write(group).await;
        }
    }

    /// Writes a group under a slot. Who was overtaken leaves it, and the others try again.
    async fn write(&self, mut group: Vec<Unit>) {
        let log = &self.log;
        let mut slot = match log.next_slot().await {
            Ok(slot) => slot,
            Err(error) => return fail(group, error),
        };
        loop {
            let stale = |planned: &Planned| planned.after.is_some_and(|p| p / SLOT >= slot);
            if group.iter().flat_map(|unit| &unit.planned).any(stale) {
                let what = "the counter of the log is behind the log, as after a restore of the \
                            table; set `n` of the item `counter` to the last slot";
                return fail(group, corrupt(what));
            }
            match log.write_slot(slot, &mut group).await {
                Ok(Slotted::Written) => break,
                Ok(Slotted::Overtaken(who)) => {
                    let mut index = 0;
                    for unit in group.extract_if(.., |_| {
                        index += 1;
                        who.contains(&(index - 1))
                    }) {
                        // Who has gone does not want to know.
                        drop(unit.reply.send(Ok(Outcome::Overtaken)));
                    }
                    if group.is_empty() {
                        log.abandon(slot);
                        return;
                    }
                }
                Ok(Slotted::Closed) => match log.next_slot().await {
                    Ok(next) => slot = next,
                    Err(error) => return fail(group, error),
                },
                Err(error) => {
                    // Had it been written all the same, this does nothing.
                    log.abandon(slot);
                    return fail(group, error);
                }
            }
        }
        let streams = group.iter().flat_map(|unit| &unit.planned).map(|planned| &planned.stream);
        log.notifier.appended(streams, Some(slot));
        for unit in group {
            let positions = positions(&unit.planned);
            drop(unit.reply.send(Ok(Outcome::Written(positions))));
        }
        log.keep_settled(slot);
    }
}

/// Tells all who share it.
fn fail(group: Vec<Unit>, error: Error) {
    let shared = Arc::new(error);
    for unit in group {
        let message = "the transaction in which it was to be written failed";
        let error = Error::new(shared.kind(), message).with_source(shared.clone());
        let unknown = shared.outcome_unknown();
        let error = if unknown { error.with_outcome_unknown() } else { error };
        drop(unit.reply.send(Err(error)));
    }
}

/// What became of a slot.
enum Slotted {
    Written,
    /// Some of the units, by their number, cannot be written any more.
    Overtaken(HashSet<usize>),
    /// A reader has closed the slot, since it was empty for too long.
    Closed,
}

impl Log {
    /// Writes all units and the slot in one transaction, or nothing.
    async fn write_slot(&self, slot: u64, group: &mut [Unit]) -> Result<Slotted> {
        let mut position = slot * SLOT;
        let mut entries = Vec::new();
        for planned in group.iter_mut().flat_map(|unit| &mut unit.planned) {
            planned.batch.position = Some(position);
            planned.batch.entry = entries.len() as u64;
            position += planned.count();
            entries.push(planned.entry());
        }
        let mut item = Key::slot(slot, self.stripes).attributes();
        Slot::Entries(entries).insert_into(&mut item);
        let planned = || group.iter().flat_map(|unit| &unit.planned);
        let mut changes: Vec<_> = planned().map(Planned::change).collect();
        changes.push(Change::Put(item.clone(), Condition::ABSENT));
        let mut written = self.table.transact(&changes).await?;
        match written.pop() {
            Some(Written::Refused(found)) if found.get("a") == item.get("a") => {
                // An earlier try has been successful, and its answer was lost.
                return Ok(Slotted::Written);
            }
            Some(Written::Refused(_)) => return Ok(Slotted::Closed),
            Some(Written::Done) => {}
            None => return Err(internal("a transaction of nothing")),
        }
        let mut overtaken = HashSet::new();
        let mut written = written.into_iter();
        for (index, unit) in group.iter().enumerate() {
            for (planned, written) in unit.planned.iter().zip(&mut written) {
                match written {
                    Written::Done => {}
                    Written::Refused(found) if planned.is(&found) => return Ok(Slotted::Written),
                    Written::Refused(_) => {
                        overtaken.insert(index);
                    }
                }
            }
        }
        let all = overtaken.is_empty();
        Ok(if all { Slotted::Written } else { Slotted::Overtaken(overtaken) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two may send the same events in the same microsecond: only one of them has written.
    #[test]
    fn the_same_events_under_another_position_are_somebody_elses() {
        let stream = StreamId::new("order-1").unwrap();
        let planned = |position| {
            let batch = Batch {
                first: 1,
                last: 1,
                append_last: 1,
                position: Some(position),
                entry: 0,
                deleted_at: 0,
                kept_from: 1,
                body: Some(vec![0]),
            };
            Planned::new(stream.clone(), batch, Condition::ABSENT, None, &[])
        };
        let ours = planned(SLOT);
        assert!(ours.is(&ours.batch.to_item(&stream)));
        assert!(!ours.is(&planned(2 * SLOT).batch.to_item(&stream)));
    }
}
