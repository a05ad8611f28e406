//! The table of orders in PostgreSQL.

use std::{sync::Arc, time::Duration};

use annals::{
    Position, Result, Store, SubscriberId,
    domain::projection::{
        Batch, BoxError, Sink, TransactionalHandler,
        postgres::{
            PostgresSink,
            sqlx::{self, Postgres, Transaction, postgres::PgPoolOptions},
        },
    },
};
use async_trait::async_trait;

use super::{CREATE, Change, INSERT, Rows, TABLE, UPDATE, View, projection};
use crate::AnyError;

/// How long to wait for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl View {
    pub(super) async fn open_postgres(store: Arc<dyn Store>, url: &str) -> Result<Self, AnyError> {
        annals::adapter::url::check_authority(url, &['/', '?', '#'])?;
        let (table, first) = (SubscriberId::new(TABLE)?, Position::new(1));
        let pool = PgPoolOptions::new().acquire_timeout(PATIENCE).connect(url).await?;
        let sink = PostgresSink::open(pool).await?;
        let mut transaction = sink.begin().await?;
        if sink.advance(&mut transaction, &table, None, first).await? {
            sqlx::query(CREATE).execute(&mut *transaction).await?;
        }
        sink.commit(transaction).await?;
        Ok(Self::Postgres(projection(store, sink)?))
    }
}

#[async_trait]
impl TransactionalHandler<Transaction<'static, Postgres>> for Rows {
    async fn handle(
        &mut self,
        transaction: &mut Transaction<'static, Postgres>,
        batch: &Batch<'_>,
    ) -> Result<(), BoxError> {
        for change in self.changes(batch).await? {
            let statement = match change {
                Change::Placed { order, sku, quantity, cents } => sqlx::query(INSERT)
                    .bind(order)
                    .bind(sku)
                    .bind(i64::from(quantity))
                    .bind(i64::from(cents)),
                Change::State { order, state } => sqlx::query(UPDATE).bind(state).bind(order),
            };
            statement.execute(&mut **transaction).await?;
        }
        Ok(())
    }
}
