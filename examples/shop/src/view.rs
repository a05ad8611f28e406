//! A row for each order, in SQLite or PostgreSQL. Each event changes it exactly once: the rows and
//! the position that they include are written in one transaction.

#[cfg(feature = "postgres")]
mod postgres;

use std::sync::Arc;

#[cfg(feature = "postgres")]
use annals::domain::projection::postgres::PostgresSink;
use annals::{
    Position, Result, Store, SubscriberId,
    domain::projection::{
        Batch, BoxError, ExactlyOnce, Projection, ProjectionError, Sink, TransactionalHandler,
        sqlite::{SqliteSink, SqliteTransaction},
    },
};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    AnyError,
    domain::OrderEvent,
    follow,
    schema::{ShopEvent, ShopSchema},
};

const NAME: &str = "shoporders";
/// Under which the version of the table is kept, as if it were a checkpoint: whoever moves it to the
/// first one creates the table, and all others wait for that.
const TABLE: &str = "shoporders@table";

// In what both databases understand: SQLite numbers parameters in the order in which they stand.
const CREATE: &str = "CREATE TABLE shop_orders (name TEXT PRIMARY KEY, \
    state TEXT NOT NULL, sku TEXT NOT NULL, quantity BIGINT NOT NULL, cents BIGINT NOT NULL)";
const INSERT: &str = "INSERT INTO shop_orders (name, state, sku, quantity, cents) \
    VALUES ($1, 'placed', $2, $3, $4)";
const UPDATE: &str = "UPDATE shop_orders SET state = $1 WHERE name = $2";

/// The projection, into either.
#[derive(Debug)]
pub enum View {
    Sqlite(Projection<ExactlyOnce<SqliteSink, Rows>>),
    #[cfg(feature = "postgres")]
    Postgres(Projection<ExactlyOnce<PostgresSink, Rows>>),
}

impl View {
    /// In a PostgreSQL database where it is a URL that says so, else in an SQLite file.
    pub async fn open(store: Arc<dyn Store>, place: &str) -> Result<Self, AnyError> {
        if place.starts_with("postgres://") || place.starts_with("postgresql://") {
            #[cfg(feature = "postgres")]
            return Self::open_postgres(store, place).await;
            #[cfg(not(feature = "postgres"))]
            return Err("a table in PostgreSQL needs the shop's feature `postgres`: \
                        cargo run -p shop --features postgres -- --view postgres://…"
                .into());
        }
        let (table, first) = (SubscriberId::new(TABLE)?, Position::new(1));
        let sink = SqliteSink::open(place)?;
        let mut transaction = sink.begin().await?;
        if sink.advance(&mut transaction, &table, None, first).await? {
            transaction.execute_batch(CREATE)?;
        }
        sink.commit(transaction).await?;
        Ok(Self::Sqlite(projection(store, sink)?))
    }

    /// Keeps the table up to date until what is done is in it.
    pub async fn follow(&mut self, done: watch::Receiver<bool>) -> Result<(), ProjectionError> {
        match self {
            Self::Sqlite(projection) => follow(projection, done).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(projection) => follow(projection, done).await,
        }
    }
}

fn projection<S: Sink>(store: Arc<dyn Store>, sink: S) -> Result<Projection<ExactlyOnce<S, Rows>>>
where
    Rows: TransactionalHandler<S::Transaction>,
{
    let schema = ShopSchema::new()?;
    let source = schema.orders.filter();
    Ok(Projection::exactly_once(store, NAME, sink, Rows { schema })?.with_source(source))
}

/// Writes the rows.
#[derive(Debug)]
pub struct Rows {
    schema: ShopSchema,
}

enum Change {
    Placed { order: String, sku: String, quantity: u32, cents: u32 },
    State { order: String, state: &'static str },
}

impl Rows {
    async fn changes(&self, batch: &Batch<'_>) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for event in batch.events {
            for event in self.schema.decode(event).await? {
                let ShopEvent::Order(order, event) = event else { continue };
                changes.push(match event {
                    OrderEvent::Placed { sku, quantity, cents } => {
                        Change::Placed { order, sku, quantity, cents }
                    }
                    OrderEvent::Paid { .. } => Change::State { order, state: "paid" },
                    OrderEvent::Shipped => Change::State { order, state: "shipped" },
                    OrderEvent::Cancelled { .. } => Change::State { order, state: "cancelled" },
                });
            }
        }
        Ok(changes)
    }
}

#[async_trait]
impl TransactionalHandler<SqliteTransaction> for Rows {
    async fn handle(
        &mut self,
        transaction: &mut SqliteTransaction,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        for change in self.changes(batch).await? {
            match change {
                Change::Placed { order, sku, quantity, cents } => {
                    transaction.prepare_cached(INSERT)?.execute((order, sku, quantity, cents))?
                }
                Change::State { order, state } => {
                    transaction.prepare_cached(UPDATE)?.execute((state, order))?
                }
            };
        }
        Ok(())
    }
}
