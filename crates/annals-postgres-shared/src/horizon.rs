//! Up to which position readers may read, so that they skip no event.
//!
//! Positions come from a sequence, and appends commit in any order: a reader that remembered the
//! greatest position it saw would skip the events that are committed below it later. The function
//! `horizon` in the schema of each store says which positions are settled, and explains why. This
//! file calls it, once for all readers that wait at the same time.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals_core::{Error, ErrorKind, Position, Result, adapter::Backoff};
use sqlx::{Row, postgres::PgRow};
use tokio::sync::Mutex;

use crate::{
    connections::Connections,
    early::EarlyNumbers,
    error::{Concerns, SharedError, concerns, driver, standby},
    sql::query,
};

/// The first pause before asking again whether an append is still under way: about as long as an
/// append takes on a slow disk.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The pauses of a reader that waits for a gap to close.
pub fn backoff() -> Backoff {
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)
}

#[derive(Debug)]
pub struct Horizon {
    connections: Arc<Connections>,
    /// The statement that asks, with the store's key and a settled position.
    question: Arc<str>,
    /// The statement that says whether an append has events on both sides of a position.
    is_within_append: Arc<str>,
    lock_key: i32,
    /// How many times the server was asked: a reader that waited while others asked need not ask
    /// again. If all of them asked a server that does not answer, the last would wait as many times
    /// as long as the first.
    asked: AtomicU64,
    known: Mutex<Known>,
    /// The pairs of positions between which another server gave positions, and this one lacks what it
    /// committed last.
    losses: RwLock<Vec<i64>>,
    /// If other programs take positions before their transactions begin.
    early: Option<EarlyNumbers>,
}

/// What the last answer of the server said.
#[derive(Clone, Debug, Default)]
struct Known {
    watermarks: Watermarks,
    gap: Option<Gap>,
    /// The last question that failed because the server cannot be reached, if no other has succeeded
    /// since: its number, and its error.
    failed: Option<(u64, SharedError)>,
}

/// Missing positions below one that can be seen, and the appends that may still fill them.
#[derive(Clone, Debug)]
struct Gap {
    visible: i64,
    /// `None` while an append may still begin that has taken one of the positions already.
    in_flight: Option<HashSet<String>>,
    seen: Instant,
}

/// An answer of the server, for `Known`.
struct Learnt {
    settled: i64,
    visible: i64,
    in_flight: HashSet<String>,
    /// When the server was asked, and when it had answered.
    asked: Instant,
    answered: Instant,
    /// How long after a gap was seen an append may begin that fills it; `None` for no time.
    wait: Option<Duration>,
}

/// How far the order of positions is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watermarks {
    /// Up to this position, every append has become visible or has failed.
    settled: i64,
    /// The greatest position that can be seen. It is beyond `settled` if there is a gap.
    visible: i64,
}

impl Watermarks {
    pub fn settled(self) -> Position {
        Position::from_i64(self.settled)
    }

    /// Whether events can be seen behind a gap.
    pub fn has_gap(self) -> bool {
        self.settled < self.visible
    }

    /// The greatest position that was seen.
    fn seen(self) -> i64 {
        self.settled.max(self.visible)
    }
}

impl Horizon {
    pub fn new(
        connections: Arc<Connections>,
        question: Arc<str>,
        is_within_append: Arc<str>,
        lock_key: i32,
    ) -> Self {
        let (asked, known, losses) = (AtomicU64::new(0), Mutex::default(), RwLock::default());
        let early = None;
        Self { connections, question, is_within_append, lock_key, asked, known, losses, early }
    }

    /// For a store beside programs that take positions before their transactions begin.
    #[must_use]
    pub fn with_early_numbers(self, early: EarlyNumbers) -> Self {
        Self { early: Some(early), ..self }
    }

    /// How many events have come too late so far: see [`check_passed`](Self::check_passed).
    pub fn late(&self) -> usize {
        self.early.as_ref().map_or(0, EarlyNumbers::late)
    }

    /// Refuses to read on after `from` if an event has come at or below it that readers have passed.
    /// `late` counts those that the reader knows of, or will read.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`], which names the position.
    pub fn check_passed(&self, from: Position, late: &mut usize) -> Result<()> {
        self.early.as_ref().map_or(Ok(()), |early| early.check_passed(from, late))
    }

    /// Asks the server once. Whatever was committed before this call is settled, or behind a gap.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if the server has lost positions that were settled before.
    pub async fn ask(&self) -> Result<Watermarks> {
        let asked = self.asked.load(Ordering::Acquire);
        let mut known = self.known.lock().await;
        // Two others must have asked meanwhile: the first of them may have begun before this call.
        let others = self.asked.load(Ordering::Acquire) - asked;
        match &known.failed {
            Some((number, error)) if *number > asked => return Err(error.copy()),
            _ if others >= 2 => return Ok(known.watermarks),
            _ => {}
        }
        let before = known.watermarks.settled;
        let begun = Instant::now();
        let statement = || query(&self.question).bind(self.lock_key).bind(before);
        let row = match self.connections.row(statement).await.map_err(driver) {
            Ok(row) => row,
            Err(error) if concerns(&error) == Concerns::All => {
                let error = SharedError::new(error);
                let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
                known.failed = Some((number, error.clone()));
                return Err(error.copy());
            }
            Err(error) => return Err(error),
        };
        known.failed = None;
        let Answer { settled, visible, in_flight, is_standby, last_given, losses } =
            Answer::decode(&row).map_err(driver)?;
        if is_standby {
            // Another statement on this connection would be answered by the standby as well.
            self.connections.close_idle();
            return Err(driver(standby()));
        }
        let seen = known.watermarks.seen();
        let after = last_given.filter(|last_given| *last_given < seen);
        if let Some(after) = after.or_else(|| lost_after(&losses, seen)) {
            return Err(lost_positions(seen, after));
        }
        self.learn_losses(losses);
        let in_flight = in_flight.into_iter().flatten().collect();
        let wait = self.early.as_ref().map(|early| early.wait);
        // A copy, which nobody sees if this future is dropped or fails before it has remembered the gap.
        let mut learnt = known.clone();
        let (asked, answered) = (begun, Instant::now());
        let passed = learnt.learn(Learnt { settled, visible, in_flight, asked, answered, wait });
        if let Some(early) = &self.early {
            early.look(&self.connections, passed).await.map_err(driver)?;
        }
        *known = learnt;
        self.asked.fetch_add(1, Ordering::AcqRel);
        Ok(known.watermarks)
    }

    fn learn_losses(&self, losses: Vec<i64>) {
        let is_known = *self.losses.read().unwrap_or_else(PoisonError::into_inner) == losses;
        if !is_known {
            *self.losses.write().unwrap_or_else(PoisonError::into_inner) = losses;
        }
    }

    /// Refuses the position of an event that was lost when another server took over, as far as the last
    /// answer of the server says.
    ///
    /// # Errors
    /// [`ErrorKind::BeyondEnd`].
    pub fn check_place(&self, place: Position) -> Result<()> {
        let losses = self.losses.read().unwrap_or_else(PoisonError::into_inner);
        match lost_after(&losses, place.to_i64()) {
            Some(after) => Err(Error::beyond_end(place, Position::from_i64(after))),
            None => Ok(()),
        }
    }

    /// Waits until everything that was committed before this call is settled, and returns a position up
    /// to which a read sees each append whole or not at all. That takes about as long as the appends
    /// that are under way now.
    pub async fn reach(&self) -> Result<Position> {
        let first = self.ask().await?;
        let mut now = first;
        let mut backoff = backoff();
        while now.settled < first.visible || self.is_within_append(now).await? {
            tokio::time::sleep(backoff.next_pause()).await;
            now = self.ask().await?;
        }
        Ok(now.settled())
    }

    /// Whether an append has events on both sides of the settled position: appends that run at the same
    /// time take their positions in turn. This has to be asked even if there was no gap, since an append
    /// may have been committed between the two looks of `horizon`, at what is visible and at its gaps.
    async fn is_within_append(&self, watermarks: Watermarks) -> Result<bool> {
        let statement = || query(&self.is_within_append).bind(watermarks.settled);
        self.connections.row(statement).await.and_then(|row| row.try_get(0)).map_err(driver)
    }
}

/// The row of the statement `horizon`.
struct Answer {
    settled: i64,
    visible: i64,
    in_flight: Option<Vec<String>>,
    is_standby: bool,
    /// The last position that the sequence has given, unless the role may not know it.
    last_given: Option<i64>,
    losses: Vec<i64>,
}

impl Answer {
    fn decode(row: &PgRow) -> sqlx::Result<Self> {
        /// The last column. Stores that do not give the positions themselves do not have it.
        const LOSSES: usize = 5;
        Ok(Self {
            losses: if row.len() > LOSSES { row.try_get(LOSSES)? } else { Vec::new() },
            settled: row.try_get(0)?,
            visible: row.try_get(1)?,
            in_flight: row.try_get(2)?,
            is_standby: row.try_get(3)?,
            last_given: row.try_get(4)?,
        })
    }
}

/// If a position lies in one of the pairs, the position after which events were lost.
fn lost_after(losses: &[i64], position: i64) -> Option<i64> {
    losses.chunks_exact(2).find_map(|pair| match *pair {
        [after, until] if after < position && position < until => Some(after),
        _ => None,
    })
}

/// The error after a fail-over to an asynchronous replica, or a restore, under an open store: readers
/// have seen events that are no longer there.
fn lost_positions(seen: i64, after: i64) -> Error {
    let message = format!(
        "this store has seen events up to position {seen}, and the server has none of those after \
         {after}: it has lost commits; open the store again, and reset every consumer whose \
         checkpoint is above {after}"
    );
    Error::new(ErrorKind::Incompatible, message)
}

impl Known {
    /// Takes an answer. Gives the positions between which a gap was passed, if one was.
    fn learn(&mut self, learnt: Learnt) -> Option<(i64, i64)> {
        let Learnt { mut settled, visible, in_flight, asked, answered, wait } = learnt;
        let closed = self.gap.take_if(|gap| match &gap.in_flight {
            // The appends that could have filled the gap have ended, even if others have begun since.
            Some(before) => before.is_disjoint(&in_flight),
            None if asked.duration_since(gap.seen) < wait.unwrap_or_default() => false,
            // All of them have begun by now.
            None => gap.in_flight.insert(in_flight.clone()).is_empty(),
        });
        let passed = closed.filter(|gap| settled < gap.visible).map(|gap| (settled, gap.visible));
        if let Some((_, up_to)) = passed {
            settled = up_to;
        }
        self.gap = match self.gap.take() {
            _ if settled >= visible => None,
            Some(gap) if settled < gap.visible => Some(gap),
            _ => {
                let in_flight = wait.is_none().then_some(in_flight);
                Some(Gap { visible, in_flight, seen: answered })
            }
        };
        self.watermarks = Watermarks { settled, visible };
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_closed_when_the_appends_that_could_fill_it_have_ended() {
        let mut known = Known::default();
        let mut learn = |settled, visible, in_flight: &[&str]| {
            let in_flight = in_flight.iter().map(|&a| a.to_owned()).collect();
            let (asked, answered) = (Instant::now(), Instant::now());
            known.learn(Learnt { settled, visible, in_flight, asked, answered, wait: None });
            known.watermarks.settled
        };
        assert_eq!(learn(3, 3, &[]), 3);
        assert_eq!(learn(3, 8, &["1/1", "2/1"]), 3, "one of them may have taken 4");
        assert_eq!(learn(3, 9, &["2/1", "3/1"]), 3, "2/1 still may");
        assert_eq!(learn(3, 12, &["3/1", "4/1"]), 8, "3/1 began later, and cannot fill below 8");
        assert_eq!(learn(8, 12, &["4/1"]), 8);
        assert_eq!(learn(10, 12, &["5/1"]), 12);
        assert_eq!(learn(12, 12, &[]), 12);
    }
    #[test]
    fn a_gap_is_passed_when_all_that_could_fill_it_have_begun_and_ended() {
        let mut known = Known::default();
        let start = Instant::now();
        let wait = Duration::from_secs(1_000);
        let mut learn = |settled, visible, in_flight: &[&str], seconds| {
            let in_flight = in_flight.iter().map(|&a| a.to_owned()).collect();
            let asked = start + Duration::from_secs(seconds);
            let wait = Some(wait);
            known.learn(Learnt { settled, visible, in_flight, asked, answered: asked, wait })
        };
        assert_eq!(learn(3, 8, &[], 0), None, "whoever has taken 4 may not have begun");
        assert_eq!(learn(3, 9, &["1/1"], 999), None);
        assert_eq!(learn(3, 12, &["1/1", "2/1"], 1_001), None, "they may fill it");
        assert_eq!(learn(3, 12, &["2/1"], 1_002), None);
        assert_eq!(learn(3, 12, &["3/1"], 1_003), Some((3, 8)));
        assert_eq!(learn(8, 12, &[], 1_004), None, "the gap behind it is new");
        assert_eq!(learn(9, 12, &[], 3_000), Some((9, 12)), "9 has come, and 10 has not");
        assert_eq!(learn(12, 14, &[], 4_000), None);
        assert_eq!(learn(14, 14, &[], 9_000), None, "a gap that was filled is not passed");
    }
}
