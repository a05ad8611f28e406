//! Which streams were written to lately, for subscriptions that wait.
//!
//! Every commit wakes every subscription of the process. If each of them then asked the database for
//! its events, 200 quiet subscriptions would cost 200 statements for each append of anybody. So one
//! statement for all of them says which streams and types the new events have, and only those
//! subscriptions read whose events are among them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use annals_core::{EventType, Position, Result, StreamId};
use sqlx::{Row, postgres::PgRow};
use tokio::sync::Mutex;

use crate::{
    connections::Connections,
    error::{corrupt, driver},
    sql::{Sql, query},
};

/// For fewer subscriptions it is cheaper that each asks for its events.
const FEW: usize = 4;
/// The most events of one statement. If more are new, each subscription asks by itself.
const MOST_NEW: i64 = 1_000;
/// The most events that are remembered, for subscriptions that are late.
const MOST_KEPT: usize = 4_000;

#[derive(Debug)]
pub(crate) struct Recent {
    connections: Arc<Connections>,
    sql: Arc<Sql>,
    subscriptions: Arc<AtomicUsize>,
    known: Mutex<Known>,
}

/// The events between two positions.
#[derive(Debug, Default)]
struct Known {
    after: Position,
    up_to: Position,
    events: VecDeque<Touched>,
}

/// What is known of an event.
#[derive(Debug)]
pub(crate) struct Touched {
    position: Position,
    pub(crate) stream: StreamId,
    pub(crate) event_type: EventType,
}

/// Counts as a subscription until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscribed(Arc<AtomicUsize>);

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Recent {
    pub(crate) fn new(connections: Arc<Connections>, sql: Arc<Sql>) -> Self {
        let (subscriptions, known) = Default::default();
        Self { connections, sql, subscriptions, known }
    }

    /// Counts a subscription.
    pub(crate) fn subscribe(&self) -> Subscribed {
        self.subscriptions.fetch_add(1, Relaxed);
        Subscribed(self.subscriptions.clone())
    }

    /// Whether surely no event between two positions is one of these. `up_to` is settled.
    pub(crate) async fn has_none(
        &self,
        after: Position,
        up_to: Position,
        is_one: impl Fn(&Touched) -> bool,
    ) -> bool {
        if self.subscriptions.load(Relaxed) < FEW {
            return false;
        }
        let mut known = self.known.lock().await;
        if known.up_to < up_to {
            if known.up_to == Position::START {
                // Nothing is known yet.
                (known.after, known.up_to) = (after, after);
            }
            match self.read(known.up_to, up_to).await {
                Ok(Some(events)) => known.add(events, up_to),
                // Each subscription asks by itself, and reports an error of its own.
                Ok(None) | Err(_) => *known = Known { after: up_to, up_to, ..Known::default() },
            }
        }
        let newer = known.events.iter().rev().take_while(|event| event.position > after);
        known.after <= after && !newer.into_iter().any(is_one)
    }

    /// The events between two positions, unless there are too many.
    async fn read(&self, after: Position, up_to: Position) -> Result<Option<Vec<Touched>>> {
        let statement =
            || query(&self.sql.touched).bind(after.to_i64()).bind(up_to.to_i64()).bind(MOST_NEW);
        let rows = self.connections.rows(statement).await.map_err(driver)?;
        if rows.len() as i64 == MOST_NEW {
            return Ok(None);
        }
        rows.iter().map(decode).collect::<Result<_>>().map(Some)
    }
}

impl Known {
    fn add(&mut self, events: Vec<Touched>, up_to: Position) {
        self.events.extend(events);
        self.up_to = up_to;
        while self.events.len() > MOST_KEPT {
            if let Some(oldest) = self.events.pop_front() {
                self.after = oldest.position;
            }
        }
    }
}

fn decode(row: &PgRow) -> Result<Touched> {
    let position = row.try_get(0).map(Position::from_i64).map_err(driver)?;
    let illegal = |error: annals_core::Error| {
        corrupt(format!("illegal name of the event at {position}")).with_source(error)
    };
    let stream = StreamId::new(row.try_get::<&str, _>(1).map_err(driver)?).map_err(illegal)?;
    let event_type = EventType::new(row.try_get::<&str, _>(2).map_err(driver)?).map_err(illegal)?;
    Ok(Touched { position, stream, event_type })
}
