//! Reads all streams, or those that a filter lets through.

use std::{collections::BTreeSet, sync::Arc};

use annals_core::{
    Direction, EventType, Filter, Position, ReadAll, Result,
    adapter::{Page, Pages},
};
use annals_postgres_shared::{horizon, rows::Decoder};
use async_trait::async_trait;

use crate::database::Database;

/// How many positions one statement looks at for a filter, which no index of Marten helps: it takes
/// some milliseconds.
const SCANNED_POSITIONS: u64 = 16_384;

/// What a filter asks for.
struct Wanted {
    types: Option<Vec<String>>,
    /// With what a stream id begins: the prefix, and the category with its `-`; empty for any.
    prefixes: [String; 2],
}

impl Wanted {
    /// `None` for everything.
    fn of(filter: &Filter) -> Option<Self> {
        let types: BTreeSet<_> = filter.event_types.iter().map(EventType::as_str).collect();
        let prefix = filter.prefix.as_ref().map(|prefix| prefix.as_str().to_owned());
        let category = filter.category.as_ref().map(|category| format!("{}-", category.as_str()));
        if types.is_empty() && prefix.is_none() && category.is_none() {
            return None;
        }
        Some(Self {
            types: (!types.is_empty()).then(|| types.into_iter().map(str::to_owned).collect()),
            prefixes: [prefix, category].map(Option::unwrap_or_default),
        })
    }
}

/// The pages of all streams, after or before a position.
pub(crate) struct AllPages {
    database: Arc<Database>,
    wanted: Option<Wanted>,
    include_system: bool,
    forwards: bool,
    limit: Option<u64>,
    /// The position after which, or before which, the next page begins.
    from: Position,
    /// The position up to which a forward read may go, since every append up to there has ended. A
    /// backward read needs no such position: an event that is not visible yet came after the read
    /// began.
    settled: Option<Position>,
    live: bool,
    decoder: Decoder,
}

impl AllPages {
    pub(crate) fn new(database: Arc<Database>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        let forwards = direction == Direction::Forwards;
        let start = if forwards { Position::START } else { Position::new(u64::MAX) };
        Self {
            wanted: Wanted::of(&filter),
            include_system: filter.include_system,
            forwards,
            limit,
            from: from.unwrap_or(start),
            settled: None,
            live: false,
            decoder: Decoder::default(),
            database,
        }
    }

    /// The pages of a subscription, which begins after a position.
    pub(crate) fn live(database: Arc<Database>, filter: Filter, after: Position) -> Self {
        let options = ReadAll::default().with_filter(filter).after(after);
        Self { live: true, ..Self::new(database, options) }
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

    /// A page of the events between two positions, both excluded, and the position up to which (in
    /// the direction of the read) every event was looked at.
    async fn between(&mut self, low: Position, high: Position) -> Result<(Page, Position)> {
        let (mut low, mut high) = (low, high);
        let mut is_window = false;
        if self.wanted.is_some() {
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
        let text = match (&self.wanted, self.forwards) {
            (None, true) => &sql.all_forwards,
            (None, false) => &sql.all_backwards,
            (Some(_), true) => &sql.scan_forwards,
            (Some(_), false) => &sql.scan_backwards,
        };
        let (wanted, pages) = (&self.wanted, &self.database.pages);
        let rows = pages
            .fetch(
                &mut self.decoder,
                None,
                self.limit,
                self.include_system,
                text,
                |statement, most| {
                    let statement = statement.bind(low.to_i64()).bind(high.to_i64()).bind(most);
                    match wanted {
                        None => statement,
                        Some(Wanted { types, prefixes: [prefix, category] }) => {
                            statement.bind(types).bind(prefix).bind(category)
                        }
                    }
                },
            )
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
        let mut is_all = !self.live;
        let settled = match self.settled {
            Some(settled) if self.from < settled => settled,
            _ if self.live => {
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
        let (mut page, at) = self.between(self.from, settled.plus(1)).await?;
        self.from = at;
        page.considered = at;
        page.more |= !is_all;
        Ok(page)
    }
}
