//! Reads all streams, or those that a filter lets through.

use std::{collections::BTreeSet, sync::Arc};

use annals_core::{
    Direction, EventType, Filter, Position, ReadAll, Result,
    adapter::{Page, Pages},
};
use async_trait::async_trait;

use crate::{
    database::Database,
    horizon,
    recent::{Subscribed, Touched},
    rows::Decoder,
};

/// How many positions one statement looks at if no index helps, which takes some milliseconds.
const SCANNED_POSITIONS: u64 = 16_384;

/// How the events of a filter are found.
enum Access {
    /// Without a filter, by their positions.
    Everything,
    /// By the index of categories.
    Category(String),
    /// By the index of types.
    Types,
    /// By looking at every event: no index helps.
    Scan,
}

impl Access {
    fn of(filter: &Filter) -> Self {
        let Filter { category, prefix, event_types, .. } = filter;
        // Every stream whose id begins with `order-4` is in the category `order`.
        let implied = || Some(prefix.as_ref()?.as_str().split_once('-')?.0);
        let category = category.as_ref().map(|category| category.as_str()).or_else(implied);
        match category.filter(|category| !category.is_empty()) {
            Some(category) => Self::Category(category.to_owned()),
            None if prefix.is_some() => Self::Scan,
            None if event_types.is_empty() => Self::Everything,
            None => Self::Types,
        }
    }
}

/// The pages of all streams, after or before a position.
pub(crate) struct AllPages {
    database: Arc<Database>,
    filter: Filter,
    access: Access,
    types: Option<Vec<String>>,
    prefix: Option<String>,
    forwards: bool,
    limit: Option<u64>,
    /// The position after which, or before which, the next page begins.
    from: Position,
    /// The position up to which a read may go, since every append up to there has ended. A backward
    /// read begins there: if it gave an event above an append under way, a reader that goes on from
    /// that event would never see the append.
    settled: Option<Position>,
    /// Counts the subscription that reads these pages, if one does.
    live: Option<Subscribed>,
    decoder: Decoder,
}

impl AllPages {
    pub(crate) fn new(database: Arc<Database>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        let forwards = direction == Direction::Forwards;
        let start = if forwards { Position::START } else { Position::new(u64::MAX) };
        // Remove duplicate types: each type costs one index lookup.
        let types: BTreeSet<_> = filter.event_types.iter().map(EventType::as_str).collect();
        Self {
            access: Access::of(&filter),
            types: (!types.is_empty()).then(|| types.into_iter().map(str::to_owned).collect()),
            prefix: filter.prefix.as_ref().map(|prefix| prefix.as_str().to_owned()),
            filter,
            forwards,
            limit,
            from: from.unwrap_or(start),
            settled: None,
            live: None,
            decoder: Decoder::default(),
            database,
        }
    }

    /// The pages of a subscription, which begins after a position.
    pub(crate) fn live(database: Arc<Database>, filter: Filter, after: Position) -> Self {
        let options = ReadAll::default().with_filter(filter).after(after);
        let live = Some(database.recent.subscribe());
        Self { live, ..Self::new(database, options) }
    }

    /// The settled position, and whether every visible event is at or below it. While the next
    /// event is behind a gap, waits.
    async fn ask(&self) -> Result<(Position, bool)> {
        let mut backoff = horizon::backoff();
        loop {
            let watermarks = self.database.horizon.ask().await?;
            if watermarks.settled() > self.from || !watermarks.has_gap() {
                return Ok((watermarks.settled(), !watermarks.has_gap()));
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Whether surely no event up to a position passes the filter.
    async fn has_none(&self, settled: Position) -> bool {
        let filter = &self.filter;
        let passes = |event: &Touched| filter.matches(&event.stream, &event.event_type);
        match self.access {
            Access::Everything => false,
            _ => self.database.recent.has_none(self.from, settled, passes).await,
        }
    }

    /// A page of the events between two positions, both excluded, and the position up to which (in
    /// the direction of the read) every event was looked at.
    async fn between(&mut self, low: Position, high: Position) -> Result<(Page, Position)> {
        let (mut low, mut high) = (low, high);
        let mut is_window = false;
        if let Access::Scan = self.access {
            let window = if self.forwards {
                (low, high.min(low.plus(SCANNED_POSITIONS + 1)))
            } else {
                // Begin at the last event: `high` may be far beyond it.
                high = high.min(self.database.last_position().await?.plus(1));
                (low.max(high.minus(SCANNED_POSITIONS + 1)), high)
            };
            is_window = window != (low, high);
            (low, high) = window;
        }
        let sql = &self.database.sql;
        let text = match (&self.access, self.forwards) {
            (Access::Everything, true) => &sql.all_forwards,
            (Access::Everything, false) => &sql.all_backwards,
            (Access::Category(_), true) => &sql.category_forwards,
            (Access::Category(_), false) => &sql.category_backwards,
            (Access::Types, true) => &sql.types_forwards,
            (Access::Types, false) => &sql.types_backwards,
            (Access::Scan, true) => &sql.scan_forwards,
            (Access::Scan, false) => &sql.scan_backwards,
        };
        let (access, types, prefix) = (&self.access, &self.types, &self.prefix);
        let (pages, include_system) = (&self.database.pages, self.filter.include_system);
        let rows = pages
            .fetch(&mut self.decoder, None, self.limit, include_system, text, |statement, most| {
                let statement = statement.bind(low.to_i64()).bind(high.to_i64()).bind(most);
                match access {
                    Access::Everything => statement,
                    Access::Types => statement.bind(types),
                    Access::Category(category) => statement.bind(types).bind(prefix).bind(category),
                    Access::Scan => statement.bind(types).bind(prefix),
                }
            })
            .await?;
        let edge = if self.forwards { high.minus(1) } else { low.plus(1) };
        let at = rows.last.filter(|_| rows.more).unwrap_or(edge);
        self.limit = self.limit.map(|limit| limit.saturating_sub(rows.events.len() as u64));
        let more = (rows.more || is_window) && self.limit != Some(0);
        Ok((Page { events: rows.events, considered: at, more }, at))
    }
}

#[async_trait]
impl Pages for AllPages {
    async fn next_page(&mut self) -> Result<Page> {
        let empty = Page { events: Vec::new(), considered: self.from, more: false };
        if self.limit == Some(0) {
            return Ok(empty);
        }
        if !self.forwards {
            if self.settled.is_none() {
                let settled = self.database.horizon.reach().await?;
                self.settled = Some(settled);
                self.from = self.from.min(settled.plus(1));
            }
            let (page, at) = self.between(Position::START, self.from).await?;
            self.from = at;
            return Ok(page);
        }
        let mut is_all = self.live.is_none();
        let settled = match self.settled {
            Some(settled) if self.from < settled => settled,
            _ if self.live.is_some() => {
                let (settled, all) = self.ask().await?;
                is_all = all;
                settled
            }
            Some(_) => return Ok(empty),
            None => self.database.horizon.reach().await?,
        };
        self.settled = Some(settled);
        if settled <= self.from {
            return Ok(Page { more: !is_all, ..empty });
        }
        if self.live.is_some() && self.has_none(settled).await {
            self.from = settled;
            return Ok(Page { considered: settled, more: !is_all, ..empty });
        }
        let (mut page, at) = self.between(self.from, settled.plus(1)).await?;
        self.from = at;
        page.considered = at;
        page.more |= !is_all;
        Ok(page)
    }
}
