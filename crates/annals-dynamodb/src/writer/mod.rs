//! Writing appends. Without an order over all streams each append is written by itself; with an
//! order, appends that wait at the same time share a transaction and a slot of the log.

mod group;
mod new_item;
mod queue;

use std::sync::Arc;

use annals_core::Result;
use tokio::sync::oneshot;

use crate::{
    error::runtime_ended,
    log::Log,
    notify::Notifier,
    table::{Table, WriteOutcome},
};
use group::GroupWriter;
use queue::AppendRequest;

pub(crate) use new_item::{AppendOutcome, NewItem};

/// Writes the items of appends.
#[derive(Debug)]
pub(crate) struct Writer {
    table: Table,
    notifier: Arc<Notifier>,
    /// Writes with a slot of the log, if the store has an order over all streams.
    groups: Option<Arc<GroupWriter>>,
}

impl Writer {
    /// A writer that runs at most `most_tasks` transactions at the same time, if there is a log.
    pub(crate) fn new(
        table: Table,
        log: Option<Arc<Log>>,
        notifier: Arc<Notifier>,
        most_tasks: usize,
    ) -> Self {
        let groups = log.map(|log| Arc::new(GroupWriter::new(log, notifier.clone(), most_tasks)));
        Self { table, notifier, groups }
    }

    /// Writes all the items, or none.
    pub(crate) async fn write(&self, items: Vec<NewItem>) -> Result<AppendOutcome> {
        let Some(groups) = &self.groups else {
            let outcome = write_alone(&self.table, &items).await;
            if let Ok(AppendOutcome::Written(_)) = outcome {
                self.notifier.appended(items.iter().map(|item| &item.stream), None);
            }
            return outcome;
        };
        let (reply, outcome) = oneshot::channel();
        groups.send(AppendRequest { items, reply });
        outcome.await.unwrap_or_else(|dropped| Err(runtime_ended(dropped)))
    }
}

/// Writes without a log. One item costs one request, and as little as DynamoDB can charge.
async fn write_alone(table: &Table, items: &[NewItem]) -> Result<AppendOutcome> {
    let outcomes = match items {
        [one] => vec![table.put(&one.to_item(), &one.condition).await?],
        several => table.transact(&several.iter().map(NewItem::change).collect::<Vec<_>>()).await?,
    };
    let mut refused = outcomes.iter().zip(items).filter_map(|(outcome, item)| match outcome {
        WriteOutcome::Written => None,
        WriteOutcome::Refused(found) => Some(item.was_written(found)),
    });
    // A transaction is atomic: one item that an earlier try has written stands for all.
    Ok(match refused.next() {
        Some(first) if !(first || refused.any(|ours| ours)) => AppendOutcome::Overtaken,
        _ => AppendOutcome::Written(new_item::last_positions(items)),
    })
}
