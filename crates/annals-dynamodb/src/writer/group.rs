//! Tasks that write groups of appends, each group in one transaction with a slot of the log.

use std::{collections::HashSet, sync::Arc};

use annals_core::{Error, Result};
use tokio::runtime::{Handle, Id};

use super::{
    new_item::{AppendOutcome, NewItem, last_positions},
    queue::{AppendRequest, Queue},
};
use crate::{
    error::{internal, share},
    item::{POSITIONS_PER_SLOT, Slot, attribute::ENTRIES},
    log::Log,
    notify::Notifier,
    table::{Change, Condition, WriteOutcome},
};

/// Writes appends in groups.
#[derive(Debug)]
pub(super) struct GroupWriter {
    log: Arc<Log>,
    notifier: Arc<Notifier>,
    queue: Queue,
}

/// What became of the transaction for a slot.
enum SlotOutcome {
    Written,
    /// Nothing is written, because other appends came before the requests with these indexes.
    Overtaken(HashSet<usize>),
    /// Nothing is written, because a reader has closed the slot, which was empty for too long.
    Closed,
    /// Nothing is written, because the slot has other appends: its number was given out twice.
    Used,
    /// Nothing is written, because DynamoDB throttles the partition of the slot.
    Throttled,
}

/// After how many throttled tries a slot is given up for one in another partition: readers wait for the
/// slot, and would close it.
const MOST_THROTTLED: usize = 2;
/// How many slots a group gives up. If the whole table is throttled, another slot does not help.
const MOST_GIVEN_UP: usize = 3;

impl GroupWriter {
    /// A writer that runs at most `most_tasks` transactions at the same time for each runtime.
    pub(super) fn new(log: Arc<Log>, notifier: Arc<Notifier>, most_tasks: usize) -> Self {
        Self { log, notifier, queue: Queue::new(most_tasks) }
    }

    /// Hands a request to a task. The task goes on if the caller stops waiting, so that the slot
    /// which it has allocated is written and makes no reader wait.
    pub(super) fn send(self: &Arc<Self>, request: AppendRequest) {
        let runtime = Handle::current().id();
        if self.queue.push(runtime, request) {
            tokio::spawn(WriterTask { writer: self.clone(), runtime, counts: true }.run());
        }
    }

    /// Writes a group in one transaction. A request that was overtaken leaves the group, and the
    /// rest of it is tried again.
    async fn write(&self, mut group: Vec<AppendRequest>) {
        let log = &self.log;
        let mut slot = match self.allocate_after(&group, None).await {
            Ok(slot) => slot,
            Err(error) => return fail(group, error),
        };
        let mut given_up = 0;
        loop {
            let tries = if given_up < MOST_GIVEN_UP { MOST_THROTTLED } else { usize::MAX };
            match self.write_slot(slot, &mut group, tries).await {
                Ok(SlotOutcome::Written) => break,
                Ok(SlotOutcome::Overtaken(indexes)) => {
                    let mut left = Vec::with_capacity(group.len());
                    for (index, request) in group.into_iter().enumerate() {
                        if indexes.contains(&index) {
                            request.reply(Ok(AppendOutcome::Overtaken));
                        } else {
                            left.push(request);
                        }
                    }
                    group = left;
                    if group.is_empty() {
                        log.abandon(slot);
                        return;
                    }
                }
                Ok(outcome) => {
                    let used = matches!(outcome, SlotOutcome::Used).then_some(slot);
                    if matches!(outcome, SlotOutcome::Throttled) {
                        log.abandon(slot);
                        given_up += 1;
                    }
                    match self.allocate_after(&group, used).await {
                        Ok(next) => slot = next,
                        Err(error) => return fail(group, error),
                    }
                }
                Err(error) => {
                    // If the slot was written all the same, this changes nothing.
                    log.abandon(slot);
                    return fail(group, error);
                }
            }
        }
        let streams = group.iter().flat_map(|request| &request.items).map(|item| &item.stream);
        self.notifier.appended(streams, Some(slot));
        for request in group {
            let positions = last_positions(&request.items);
            request.reply(Ok(AppendOutcome::Written(positions)));
        }
        log.settle_sometimes(slot);
    }

    /// Allocates a slot after those of all events before the group, and after one that was given out
    /// although it is used. If the counter is behind them, it is raised first.
    async fn allocate_after(&self, group: &[AppendRequest], used: Option<u64>) -> Result<u64> {
        if let Some(used) = used {
            self.log.mend_counter(used).await?;
        }
        let slot = self.log.allocate().await?;
        let items = group.iter().flat_map(|request| &request.items);
        match items.filter_map(NewItem::slot_before).max() {
            Some(before) if before >= slot => {
                self.log.mend_counter(before).await?;
                self.log.allocate().await
            }
            _ => Ok(slot),
        }
    }

    /// Writes all items of a group and the slot in one transaction, or nothing. Gives up after so many
    /// throttled tries.
    async fn write_slot(
        &self,
        slot: u64,
        group: &mut [AppendRequest],
        tries: usize,
    ) -> Result<SlotOutcome> {
        let mut position = slot * POSITIONS_PER_SLOT;
        let mut entries = Vec::new();
        for item in group.iter_mut().flat_map(|request| &mut request.items) {
            item.place(position, entries.len() as u64);
            position += item.count();
            entries.push(item.entry());
        }
        let slot_item = self.log.item(slot, &Slot::Entries(entries));
        let items = group.iter().flat_map(|request| &request.items);
        let mut changes: Vec<_> = items.map(NewItem::change).collect();
        changes.push(Change::Put(slot_item.clone(), Condition::absent()));
        let outcomes = self.log.table.transact_unless_throttled(&changes, tries).await?;
        let Some(mut outcomes) = outcomes else { return Ok(SlotOutcome::Throttled) };
        match outcomes.pop() {
            Some(WriteOutcome::Refused(found)) if found.get(ENTRIES) == slot_item.get(ENTRIES) => {
                // An earlier try has written the slot, and its answer was lost.
                return Ok(SlotOutcome::Written);
            }
            Some(WriteOutcome::Refused(found)) if found.contains_key(ENTRIES) => {
                return Ok(SlotOutcome::Used);
            }
            Some(WriteOutcome::Refused(_)) => return Ok(SlotOutcome::Closed),
            Some(WriteOutcome::Written) => {}
            None => return Err(internal("a transaction without writes")),
        }
        let mut overtaken = HashSet::new();
        let mut outcomes = outcomes.into_iter();
        for (index, request) in group.iter().enumerate() {
            for (item, outcome) in request.items.iter().zip(&mut outcomes) {
                match outcome {
                    WriteOutcome::Written => {}
                    WriteOutcome::Refused(found) if item.was_written(&found) => {
                        return Ok(SlotOutcome::Written);
                    }
                    WriteOutcome::Refused(_) => {
                        overtaken.insert(index);
                    }
                }
            }
        }
        let written = overtaken.is_empty();
        Ok(if written { SlotOutcome::Written } else { SlotOutcome::Overtaken(overtaken) })
    }
}

/// Replies to all callers of a group that its transaction failed.
fn fail(group: Vec<AppendRequest>, error: Error) {
    let error = Arc::new(error);
    for request in group {
        request.reply(Err(share(&error)));
    }
}

/// A task that writes groups until no append waits.
struct WriterTask {
    writer: Arc<GroupWriter>,
    /// The runtime of the task, and of the callers whose appends it writes.
    runtime: Id,
    /// Whether the queue counts this task.
    counts: bool,
}

impl WriterTask {
    async fn run(mut self) {
        loop {
            let group = self.writer.queue.take_group(self.runtime);
            if group.is_empty() {
                self.counts = false;
                return;
            }
            self.writer.write(group).await;
        }
    }
}

impl Drop for WriterTask {
    fn drop(&mut self) {
        if self.counts {
            self.writer.queue.task_dropped(self.runtime);
        }
    }
}
