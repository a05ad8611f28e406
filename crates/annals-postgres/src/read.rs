//! Reads, a page at a time: each page is one statement, so that an open read keeps no connection,
//! no transaction and no snapshot.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use annals_core::{
    Direction, EventType, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result, StreamId,
    Version,
    adapter::{Page, Pages},
};
use async_trait::async_trait;
use futures::{TryStreamExt, stream::BoxStream};
use sqlx::{Row, postgres::PgRow};

use crate::{
    error::{Failure, context, driver},
    horizon::Pause,
    rows::Decoder,
    sql::{Sql, Statement, query},
    store::Shared,
};

/// The most events of a page.
const PAGE_EVENTS: usize = 1_000;
/// A page ends with the event that brings its payloads to this many bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How many positions are looked at for a page where no index helps: some milliseconds' worth.
const PAGE_POSITIONS: u64 = 16_384;

/// How many events to ask for at once. The server sends what was asked for, however large it is, and
/// what is not wanted any more is only got rid of with the connection: so ask for fewer where events
/// are large.
#[derive(Debug)]
pub(crate) struct PageSize(AtomicUsize);

impl Default for PageSize {
    fn default() -> Self {
        Self(AtomicUsize::new(PAGE_EVENTS))
    }
}

impl PageSize {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A page had so many events, of so many bytes together.
    fn learn(&self, events: usize, bytes: usize) {
        let fitting = PAGE_BYTES.saturating_mul(events) / bytes.max(1);
        self.0.store(fitting.clamp(1, PAGE_EVENTS), Ordering::Relaxed);
    }
}

/// What a statement gave.
struct Rows {
    events: Vec<RecordedEvent>,
    /// How many rows, wanted or not, and of how many bytes.
    count: usize,
    bytes: usize,
    /// The position of the last row, wanted or not.
    last: Option<Position>,
    /// Whether there may be more of what was asked for.
    more: bool,
}

/// Runs a statement, and makes events of its rows, at most as many as go into a page.
async fn fetch<'q>(
    shared: &Shared,
    decoder: &mut Decoder,
    stream: Option<&StreamId>,
    limit: Option<u64>,
    include_system: bool,
    statement: impl Fn(i64) -> Statement<'q>,
) -> Result<Rows> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let most = shared.page_size.get().min(limit);
    let asked = i64::try_from(most).unwrap_or(i64::MAX);
    let mut lease = shared.connections.get().await.map_err(driver)?;
    loop {
        let rows = statement(asked).fetch(&mut *lease);
        let mut page = Rows { events: Vec::new(), count: 0, bytes: 0, last: None, more: false };
        let taken = shared.connections.within(page.take(rows, decoder, stream, include_system));
        match taken.await {
            Ok(()) => {}
            Err(Failure::Driver(error)) => {
                lease = lease.renew(error).await.map_err(driver)?;
                continue;
            }
            Err(Failure::Nonsense(error)) => return Err(error),
        }
        if page.count > 0 {
            shared.page_size.learn(page.count, page.bytes);
        }
        page.more = page.count == most;
        if page.bytes >= PAGE_BYTES && !page.more {
            // The server may have more to send, which nobody wants.
            page.more = true;
            lease.close();
        } else {
            lease.keep();
        }
        return Ok(page);
    }
}

impl Rows {
    /// Takes rows while they come and go into the page. Each is decoded when it comes: while the
    /// server makes the next, and before the next overwrites it, which is what makes this faster
    /// than `fetch_all` (see `docs/adr/0004-sqlx.md`).
    async fn take(
        &mut self,
        mut rows: BoxStream<'_, sqlx::Result<PgRow>>,
        decoder: &mut Decoder,
        stream: Option<&StreamId>,
        include_system: bool,
    ) -> Result<(), Failure> {
        while let Some(row) = rows.try_next().await? {
            let event = decoder.event(&row, stream)?;
            self.count += 1;
            self.bytes += event.data.len() + event.metadata.len();
            self.last = Some(event.position);
            // None of this store's own begins with `$`; one that another tool put there does.
            if include_system || !event.stream.is_system() {
                self.events.push(event);
            }
            if self.bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(())
    }
}

/// One stream, from a version on.
pub(crate) struct StreamPages {
    shared: Arc<Shared>,
    stream: StreamId,
    options: ReadStream,
    /// Whether somebody wants to know which positions were considered.
    is_live: bool,
    decoder: Decoder,
}

impl StreamPages {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, options: ReadStream) -> Self {
        Self { shared, stream, options, is_live: false, decoder: Decoder::default() }
    }

    /// For a subscription.
    pub(crate) fn live(shared: Arc<Shared>, stream: StreamId, after: Version) -> Self {
        let options = ReadStream::default().with_from(after.plus(1));
        Self { is_live: true, ..Self::new(shared, stream, options) }
    }

    async fn page(&mut self) -> Result<Page> {
        let mut page = Page { events: Vec::new(), considered: Position::START, more: false };
        if self.options.limit == Some(0) {
            return Ok(page);
        }
        if self.is_live {
            // Before the events are read: every one up to there can be seen by then.
            page.considered = self.shared.horizon.ask().await.map_err(driver)?.settled();
        }
        let forwards = self.options.direction == Direction::Forwards;
        let Sql { stream_forwards, stream_backwards, .. } = &*self.shared.sql;
        let text = if forwards { stream_forwards } else { stream_backwards };
        let from = match self.options.from {
            Some(from) => from.to_i64(),
            None if forwards => 0,
            None => i64::MAX,
        };
        let statement = |most| query(text).bind(self.stream.as_str()).bind(from).bind(most);
        let (stream, limit) = (Some(&self.stream), self.options.limit);
        let rows = fetch(&self.shared, &mut self.decoder, stream, limit, true, statement).await?;
        (page.events, page.more) = (rows.events, rows.more);
        let Some(last) = page.events.last() else { return Ok(page) };
        page.considered =
            if page.more { last.position } else { page.considered.max(last.position) };
        self.options.from =
            Some(if forwards { last.version.plus(1) } else { last.version.minus(1) });
        self.options.limit = limit.map(|limit| limit.saturating_sub(page.events.len() as u64));
        page.more &= self.options.limit != Some(0) && (forwards || last.version > Version::FIRST);
        Ok(page)
    }
}

#[async_trait]
impl Pages for StreamPages {
    async fn next_page(&mut self) -> Result<Page> {
        let page = self.page().await;
        page.map_err(|e| context("read_stream")(e).with_stream(&self.stream))
    }
}

/// Which index leads to the events of a filter.
enum Way {
    /// None is needed.
    Everything,
    Category(String),
    Types,
    /// None helps.
    Scan,
}

impl Way {
    fn of(filter: &Filter) -> Self {
        let Filter { category, prefix, event_types, .. } = filter;
        // What begins with `order-4` is of the category `order`.
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

/// The whole store, from one position on, itself excluded.
pub(crate) struct AllPages {
    shared: Arc<Shared>,
    filter: Filter,
    way: Way,
    types: Option<Vec<String>>,
    prefix: Option<String>,
    forwards: bool,
    limit: Option<u64>,
    /// The position after which, or before which, the next page begins.
    from: Position,
    /// Up to where it is known that no event can be skipped. Nothing is to be known for reading
    /// backwards: what is not there yet was not there when the read began.
    settled: Option<Position>,
    is_live: bool,
    decoder: Decoder,
}

impl AllPages {
    pub(crate) fn new(shared: Arc<Shared>, options: ReadAll) -> Self {
        let ReadAll { filter, from, direction, limit, .. } = options;
        let forwards = direction == Direction::Forwards;
        let start = if forwards { Position::START } else { Position::new(u64::MAX) };
        // Each once, since each is looked up by itself.
        let types: BTreeSet<_> = filter.event_types.iter().map(EventType::as_str).collect();
        Self {
            way: Way::of(&filter),
            types: (!types.is_empty()).then(|| types.into_iter().map(str::to_owned).collect()),
            prefix: filter.prefix.as_ref().map(|prefix| prefix.as_str().to_owned()),
            filter,
            forwards,
            limit,
            from: from.unwrap_or(start),
            settled: None,
            is_live: false,
            decoder: Decoder::default(),
            shared,
        }
    }

    /// For a subscription.
    pub(crate) fn live(shared: Arc<Shared>, filter: Filter, after: Position) -> Self {
        let options = ReadAll::default().with_filter(filter).after(after);
        Self { is_live: true, ..Self::new(shared, options) }
    }

    async fn page(&mut self) -> Result<Page> {
        let nothing = Page { events: Vec::new(), considered: self.from, more: false };
        if self.limit == Some(0) {
            return Ok(nothing);
        }
        if !self.forwards {
            let (page, at) = self.between(Position::START, self.from).await?;
            self.from = at;
            return Ok(page);
        }
        let mut is_all = !self.is_live;
        let settled = match self.settled {
            Some(settled) if self.from < settled => settled,
            _ if self.is_live => {
                let (settled, all) = self.ask().await?;
                is_all = all;
                settled
            }
            Some(_) => return Ok(nothing),
            None => self.shared.horizon.reach().await.map_err(driver)?,
        };
        self.settled = Some(settled);
        if settled <= self.from {
            return Ok(Page { more: !is_all, ..nothing });
        }
        let (mut page, at) = self.between(self.from, settled.plus(1)).await?;
        self.from = at;
        page.considered = at;
        page.more |= !is_all;
        Ok(page)
    }

    /// How far the order is settled, and whether that was all that could be seen. Waits a while
    /// where events are behind a gap.
    async fn ask(&self) -> Result<(Position, bool)> {
        let mut pause = Pause::default();
        loop {
            let found = self.shared.horizon.ask().await.map_err(driver)?;
            if found.settled() > self.from || !found.has_gap() {
                return Ok((found.settled(), !found.has_gap()));
            }
            pause.wait().await;
        }
    }

    /// A page of what is between two positions, both excluded, and the position up to which, in its
    /// direction, everything was considered.
    async fn between(&mut self, low: Position, high: Position) -> Result<(Page, Position)> {
        let (mut low, mut high) = (low, high);
        let mut is_window = false;
        if let Way::Scan = self.way {
            let window = if self.forwards {
                (low, high.min(low.plus(PAGE_POSITIONS + 1)))
            } else {
                // A window beyond the last event would be one of very many.
                high = high.min(last_position(&self.shared).await?.plus(1));
                (low.max(high.minus(PAGE_POSITIONS + 1)), high)
            };
            is_window = window != (low, high);
            (low, high) = window;
        }
        let sql = self.shared.sql.clone();
        let text = match (&self.way, self.forwards) {
            (Way::Everything, true) => &sql.all_forwards,
            (Way::Everything, false) => &sql.all_backwards,
            (Way::Category(_), true) => &sql.category_forwards,
            (Way::Category(_), false) => &sql.category_backwards,
            (Way::Types, true) => &sql.types_forwards,
            (Way::Types, false) => &sql.types_backwards,
            (Way::Scan, true) => &sql.scan_forwards,
            (Way::Scan, false) => &sql.scan_backwards,
        };
        let Self { shared, decoder, way, types, prefix, filter, .. } = self;
        let (way, types, prefix) = (&*way, &*types, &*prefix);
        let statement = |most: i64| {
            let query = query(text).bind(low.to_i64()).bind(high.to_i64()).bind(most);
            match way {
                Way::Everything => query,
                Way::Types => query.bind(types),
                Way::Category(category) => query.bind(types).bind(prefix).bind(category),
                Way::Scan => query.bind(types).bind(prefix),
            }
        };
        let rows =
            fetch(shared, decoder, None, self.limit, filter.include_system, statement).await?;
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
        self.page().await.map_err(context("read_all"))
    }
}

/// The greatest position that can be seen.
pub(crate) async fn last_position(shared: &Shared) -> Result<Position> {
    let row = shared.connections.row(|| query(&shared.sql.last_position)).await;
    row.and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(driver)
}
