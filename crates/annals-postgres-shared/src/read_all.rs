//! Reads of all streams: up to which position a page may go, and how many positions a statement looks at.

use annals_core::{
    Direction, Position, Result,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::{
    horizon::{self, Horizon},
    page::PageRows,
};

/// How many positions one statement looks at if no index helps, which takes some milliseconds.
const SCANNED_POSITIONS: u64 = 16_384;

/// The events of all streams that a filter lets through.
pub trait AllEvents: Send + Sync + 'static {
    fn horizon(&self) -> &Horizon;

    /// Whether no index helps, so that a statement has to look at every event.
    fn is_scan(&self) -> bool;

    /// The greatest position that can be seen.
    fn last_position(&self) -> impl Future<Output = Result<Position>> + Send;

    /// A position such that no event stands between it and this one: that of the next event in the
    /// direction of the read, or this one if it is not known.
    fn nearest(
        &self,
        position: Position,
        _forwards: bool,
    ) -> impl Future<Output = Result<Position>> + Send {
        async move { Ok(position) }
    }

    /// Reads a page of the events between two positions, both excluded.
    fn between(
        &mut self,
        low: Position,
        high: Position,
        forwards: bool,
        limit: Option<u64>,
    ) -> impl Future<Output = Result<PageRows>> + Send;

    /// Whether surely no event between two positions passes the filter.
    fn has_none(&self, after: Position, up_to: Position) -> impl Future<Output = bool> + Send;
}

/// The pages of all streams, after or before a position.
pub struct AllPages<E> {
    events: E,
    forwards: bool,
    limit: Option<u64>,
    /// The position after which, or before which, the next page begins.
    from: Position,
    /// The position up to which a read may go, since every append up to there has ended. A backward
    /// read begins there: if it gave an event above an append under way, a reader that goes on from
    /// that event would never see the append.
    settled: Option<Position>,
    live: bool,
    /// How many events that came too late a subscription knows of.
    late: usize,
}

impl<E: AllEvents> AllPages<E> {
    pub fn new(
        events: E,
        direction: Direction,
        from: Option<Position>,
        limit: Option<u64>,
    ) -> Self {
        let forwards = direction == Direction::Forwards;
        let start = if forwards { Position::START } else { Position::new(u64::MAX) };
        let from = from.unwrap_or(start);
        let late = events.horizon().late();
        Self { events, forwards, limit, from, settled: None, live: false, late }
    }

    /// The pages of a subscription, which begins after a position.
    pub fn live(events: E, after: Position) -> Self {
        Self { live: true, ..Self::new(events, Direction::Forwards, Some(after), None) }
    }

    /// The settled position, and whether every visible event is at or below it. While the next
    /// event is behind a gap, waits.
    async fn ask(&self) -> Result<(Position, bool)> {
        let mut backoff = horizon::backoff();
        loop {
            let watermarks = self.events.horizon().ask().await?;
            if watermarks.settled() > self.from || !watermarks.has_gap() {
                return Ok((watermarks.settled(), !watermarks.has_gap()));
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// A page of the events between two positions, both excluded. The next one begins at
    /// `considered`, up to which (in the direction of the read) every event was looked at.
    async fn between(&mut self, low: Position, high: Position) -> Result<Page> {
        let (start, end) = match self.events.is_scan() {
            false => (low, high),
            true if self.forwards => (low, high.min(low.plus(SCANNED_POSITIONS + 1))),
            true => (low.max(high.minus(SCANNED_POSITIONS + 1)), high),
        };
        let rows = self.events.between(start, end, self.forwards, self.limit).await?;
        // The edge of a window may stand in a gap, which may be as wide as many windows.
        let (edge, is_window) = match self.forwards {
            true if end < high => {
                let next = self.events.nearest(end, true).await?.min(high);
                (next.minus(1), next < high)
            }
            true => (end.minus(1), false),
            false if start > low => {
                let next = self.events.nearest(start, false).await?.max(low);
                (next.plus(1), next > low)
            }
            false => (start.plus(1), false),
        };
        self.from = rows.last.filter(|_| rows.more).unwrap_or(edge);
        self.limit = self.limit.map(|limit| limit.saturating_sub(rows.events.len() as u64));
        let more = (rows.more || is_window) && self.limit != Some(0);
        Ok(Page { events: rows.events, considered: self.from, more })
    }

    async fn previous_page(&mut self) -> Result<Page> {
        if self.settled.is_none() {
            let mut settled = self.events.horizon().reach().await?;
            if self.events.is_scan() {
                // The last events may have been removed, and windows without events cost statements.
                settled = settled.min(self.events.last_position().await?);
            }
            self.settled = Some(settled);
            self.from = self.from.min(settled.plus(1));
        }
        self.between(Position::START, self.from).await
    }
}

#[async_trait]
impl<E: AllEvents> Pages for AllPages<E> {
    async fn next_page(&mut self) -> Result<Page> {
        let empty = Page { events: Vec::new(), considered: self.from, more: false };
        if self.limit == Some(0) {
            return Ok(empty);
        }
        if !self.forwards {
            return self.previous_page().await;
        }
        let (settled, is_all) = match self.settled {
            Some(settled) if self.from < settled => (settled, !self.live),
            _ if self.live => self.ask().await?,
            Some(_) => return Ok(empty),
            None => (self.events.horizon().reach().await?, true),
        };
        if self.settled.replace(settled).is_none() {
            self.events.horizon().check_place(self.from)?;
        }
        if self.live {
            self.events.horizon().check_passed(self.from, &mut self.late)?;
        }
        if settled <= self.from {
            return Ok(Page { more: !is_all, ..empty });
        }
        if self.live && self.events.has_none(self.from, settled).await {
            self.from = settled;
            return Ok(Page { considered: settled, more: !is_all, ..empty });
        }
        let mut page = self.between(self.from, settled.plus(1)).await?;
        page.more |= !is_all;
        Ok(page)
    }
}
