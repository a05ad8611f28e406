//! What all handles to a store share.

use std::sync::Arc;

use annals_core::{Capabilities, Error, Result};
use aws_sdk_dynamodb::Client;

use crate::{
    config::DynamoDbOptions,
    error::BACKEND,
    head::Heads,
    item::POSITIONS_PER_SLOT,
    locks::StreamLocks,
    log::Log,
    notify::Notifier,
    schema,
    table::{MOST_ITEMS, Table},
    waiting::WaitingAppends,
    writer::Writer,
};

/// What all handles to a store share.
pub(crate) struct Shared {
    pub(crate) table: Table,
    pub(crate) options: DynamoDbOptions,
    pub(crate) capabilities: Capabilities,
    pub(crate) heads: Heads,
    pub(crate) locks: StreamLocks,
    pub(crate) waiting: WaitingAppends,
    pub(crate) notifier: Arc<Notifier>,
    /// The order over all streams, if the store has one.
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) writer: Writer,
}

/// What a store with an order over all streams declares.
pub(crate) const CAPABILITIES: Capabilities = {
    const KIB: usize = 1024;
    let mut capabilities = Capabilities::new(BACKEND);
    capabilities.durable = true;
    // DynamoDB takes items of 400 KB and transactions of 4 MB, including the keys and attributes
    // around the events. Each event of an append has a position of its own in a slot of the log.
    capabilities.max_event_bytes = 380 * KIB;
    capabilities.max_append_events = 1_000;
    capabilities.max_append_bytes = 3 * KIB * KIB;
    // Each stream of an append takes one item of a transaction or more, and the slot takes another.
    capabilities.max_append_streams = MOST_ITEMS - 1;
    capabilities
};
const _: () = assert!(CAPABILITIES.max_append_events < POSITIONS_PER_SLOT as usize);

impl Shared {
    pub(crate) async fn open(
        client: &Client,
        table: String,
        options: DynamoDbOptions,
    ) -> Result<Self> {
        options.check(&table)?;
        let table = Table::new(client, table, &options);
        let stripes = schema::open(&table, &options).await?;
        let log = Log::new(table.clone(), stripes, options.close_after);
        let log = (stripes > 0).then(|| Arc::new(log));
        if let Some(log) = &log {
            log.mend_counter(0).await?;
        }
        let notifier = Arc::new(Notifier::new(options.poll_interval));
        let writer = Writer::new(table.clone(), log.clone(), notifier.clone(), options.writers);
        let mut capabilities = CAPABILITIES;
        capabilities.global_order = log.is_some();
        let shared = Self {
            table,
            options,
            capabilities,
            heads: Heads::new(),
            locks: StreamLocks::new(),
            waiting: WaitingAppends::default(),
            notifier,
            log,
            writer,
        };
        if let Err(error) = shared.finish_removals().await {
            tracing::warn!(%error, "removals that were interrupted could not be finished");
        }
        Ok(shared)
    }

    /// The log of a store with an order over all streams.
    pub(crate) fn log(&self) -> Result<&Arc<Log>> {
        self.log.as_ref().ok_or_else(|| Error::unsupported("order over all streams"))
    }
}
