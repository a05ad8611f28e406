//! Up to which position the order of events is settled, so that a reader skips none.
//!
//! Positions come from a sequence, and appends commit in any order: a reader that remembered the
//! greatest position it saw would skip what commits below it later. `schema/0001.sql` says at
//! `horizon` how it is known that nothing is left to come; here is who asks, and when.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_core::Position;
use sqlx::Row;
use tokio::sync::Mutex;

use crate::{
    connections::Connections,
    sql::{Sql, query},
};

/// How long to wait before asking again whether an append is still under way: an append takes this
/// long where the disk is slow, and the wait grows from here.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
/// The longest wait between two questions.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Horizon {
    connections: Arc<Connections>,
    sql: Arc<Sql>,
    lock_key: i32,
    /// How many times it was asked: who waited while another asked need not ask again.
    asked: AtomicU64,
    last: Mutex<Last>,
}

/// What was found when it was last asked.
#[derive(Debug, Default)]
struct Last {
    found: Found,
    gap: Option<Gap>,
}

/// A gap below a position that could be seen, and the appends that may fill it yet.
#[derive(Debug)]
struct Gap {
    visible: i64,
    in_flight: HashSet<String>,
}

/// What is known of the order of positions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Every append up to here has become visible, or never will.
    settled: i64,
    /// The greatest position that could be seen; beyond `settled` where there is a gap.
    visible: i64,
}

impl Found {
    pub(crate) fn settled(self) -> Position {
        Position::from_i64(self.settled)
    }

    /// Whether there are events behind a gap.
    pub(crate) fn has_gap(self) -> bool {
        self.settled < self.visible
    }
}

impl Horizon {
    pub(crate) fn new(connections: Arc<Connections>, sql: Arc<Sql>, lock_key: i32) -> Self {
        let asked = AtomicU64::new(0);
        Self { connections, sql, lock_key, asked, last: Mutex::default() }
    }

    /// Asks once. Whatever was committed before this was called is settled, or behind a gap.
    pub(crate) async fn ask(&self) -> sqlx::Result<Found> {
        let before = self.asked.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        // Two, since the first may have been under way already when this was called.
        if self.asked.load(Ordering::Acquire) >= before + 2 {
            return Ok(last.found);
        }
        let known = last.found.settled;
        let statement = || query(&self.sql.horizon).bind(self.lock_key).bind(known);
        let row = self.connections.row(statement).await?;
        let (settled, visible): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let in_flight: Option<Vec<String>> = row.try_get(2)?;
        last.learn(settled, visible, in_flight.into_iter().flatten().collect());
        self.asked.fetch_add(1, Ordering::AcqRel);
        Ok(last.found)
    }

    /// Waits until everything that was committed before this was called is settled: for as long as
    /// the appends take that are under way now, at most.
    pub(crate) async fn reach(&self) -> sqlx::Result<Position> {
        let first = self.ask().await?;
        let mut found = first;
        let mut pause = Pause::default();
        while found.settled < first.visible {
            pause.wait().await;
            found = self.ask().await?;
        }
        Ok(found.settled())
    }
}

impl Last {
    fn learn(&mut self, mut settled: i64, visible: i64, in_flight: HashSet<String>) {
        // Those that could have filled it are gone, even where others have come since.
        let closed = self.gap.take_if(|gap| gap.in_flight.is_disjoint(&in_flight));
        if let Some(gap) = closed {
            settled = settled.max(gap.visible);
        }
        self.gap = match self.gap.take() {
            _ if settled >= visible => None,
            Some(gap) if settled < gap.visible => Some(gap),
            _ => Some(Gap { visible, in_flight }),
        };
        self.found = Found { settled, visible };
    }
}

/// Waits, longer each time.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_closed_when_those_are_gone_who_could_fill_it() {
        let mut last = Last::default();
        let mut learn = |settled, visible, in_flight: &[&str]| {
            last.learn(settled, visible, in_flight.iter().map(|&a| a.to_owned()).collect());
            last.found.settled
        };
        assert_eq!(learn(3, 3, &[]), 3);
        assert_eq!(learn(3, 8, &["1/1", "2/1"]), 3, "one of them may have taken 4");
        assert_eq!(learn(3, 9, &["2/1", "3/1"]), 3, "2/1 still may");
        assert_eq!(learn(3, 12, &["3/1", "4/1"]), 8, "who came later cannot fill what was below 8");
        assert_eq!(learn(8, 12, &["4/1"]), 8);
        assert_eq!(learn(10, 12, &["5/1"]), 12);
        assert_eq!(learn(12, 12, &[]), 12);
    }
}
