//! Positions that other programs take before their transactions begin.
//!
//! Nothing in the server shows that an event will still come at such a position. So a reader waits for
//! a missing position as long as the store says that such a program may take to begin, and then for the
//! transactions that are under way. Whether the program kept to that time is seen later: positions that
//! readers have passed are looked up for a while, and an event that has come after all is an error.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use annals_core::{Error, ErrorKind, Position, Result};
use sqlx::Row;

use crate::{connections::Connections, sql::query};

/// How long a position that was passed is looked up.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many positions before the end of a gap are searched for missing ones. A store that was just
/// opened passes all that were ever missing, and old ones do not come any more.
const SEARCHED: i64 = 1_000_000;

#[derive(Debug)]
pub struct EarlyNumbers {
    /// How long after it has taken a position a program may begin its transaction.
    pub(crate) wait: Duration,
    /// The statement that finds the gaps between two positions: for each the positions of the events
    /// before and after it.
    gaps: Arc<str>,
    /// The statement that finds events in such gaps, apart from those at some positions.
    events_in: Arc<str>,
    passed: Mutex<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    gaps: Vec<Gap>,
    /// The positions of the events that came after they were passed, in the order in which they were
    /// found.
    late: Vec<i64>,
    looked: Option<Instant>,
}

/// Positions without events, both ends excluded.
#[derive(Clone, Copy, Debug)]
struct Gap {
    low: i64,
    high: i64,
    passed: Instant,
}

impl EarlyNumbers {
    pub fn new(wait: Duration, gaps: Arc<str>, events_in: Arc<str>) -> Self {
        Self { wait, gaps, events_in, passed: Mutex::default() }
    }

    /// Remembers the gaps between two positions, before readers pass them. From time to time, looks
    /// whether events have come where readers have passed.
    pub(crate) async fn look(
        &self,
        connections: &Arc<Connections>,
        passed: Option<(i64, i64)>,
    ) -> sqlx::Result<()> {
        if let Some((from, up_to)) = passed {
            let from = from.max(up_to - SEARCHED);
            let rows = connections.rows(|| query(&self.gaps).bind(from).bind(up_to)).await?;
            let now = Instant::now();
            let gap = |row: &sqlx::postgres::PgRow| {
                Ok(Gap { low: row.try_get(0)?, high: row.try_get(1)?, passed: now })
            };
            let new = rows.iter().map(gap).collect::<sqlx::Result<Vec<_>>>()?;
            self.passed().gaps.extend(new);
        }
        let (lows, highs, known) = {
            let mut passed = self.passed();
            passed.gaps.retain(|gap| gap.passed.elapsed() < REMEMBERED);
            let is_due = passed.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
            if passed.gaps.is_empty() || !is_due {
                return Ok(());
            }
            passed.looked = Some(Instant::now());
            let (lows, highs): (Vec<_>, Vec<_>) =
                passed.gaps.iter().map(|gap| (gap.low, gap.high)).unzip();
            (lows, highs, passed.late.clone())
        };
        let statement = || query(&self.events_in).bind(&lows).bind(&highs).bind(&known);
        for row in connections.rows(statement).await? {
            self.passed().late.push(row.try_get(0)?);
        }
        Ok(())
    }

    pub(crate) fn late(&self) -> usize {
        self.passed().late.len()
    }

    /// An event that was found late and stands after `from` will be read like any other.
    pub(crate) fn check_passed(&self, from: Position, known: &mut usize) -> Result<()> {
        let passed = self.passed();
        let late = passed.late.iter().skip(std::mem::replace(known, passed.late.len()));
        let Some(first) = late.copied().filter(|late| *late <= from.to_i64()).min() else {
            return Ok(());
        };
        let message = format!(
            "an event has come at position {first} after readers had passed it: a program began its \
             transaction more than {wait} ms after it had taken the number; every consumer whose \
             checkpoint is {first} or above has not seen the event; reset it to {before}, and set a longer \
             `gap_wait`",
            wait = self.wait.as_millis(),
            before = first - 1,
        );
        Err(Error::new(ErrorKind::Incompatible, message))
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
