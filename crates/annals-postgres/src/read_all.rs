//! Reads all streams, or those that a filter lets through.

use std::{collections::BTreeSet, sync::Arc};

use annals_core::{EventType, Filter, Position, ReadAll, Result};
use annals_postgres_shared::{
    page::PageRows,
    read_all::{AllEvents, AllPages},
};

use crate::{
    database::Database,
    horizon::Horizon,
    recent::{Subscribed, Touched},
    rows::Decoder,
};

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

/// The events of all streams that a filter lets through.
pub(crate) struct Filtered {
    database: Arc<Database>,
    filter: Filter,
    access: Access,
    types: Option<Vec<String>>,
    prefix: Option<String>,
    /// Counts the subscription that reads these events, if one does.
    _live: Option<Subscribed>,
    decoder: Decoder,
}

impl Filtered {
    fn new(database: Arc<Database>, filter: Filter, live: Option<Subscribed>) -> Self {
        // Remove duplicate types: each type costs one index lookup.
        let types: BTreeSet<_> = filter.event_types.iter().map(EventType::as_str).collect();
        Self {
            access: Access::of(&filter),
            types: (!types.is_empty()).then(|| types.into_iter().map(str::to_owned).collect()),
            prefix: filter.prefix.as_ref().map(|prefix| prefix.as_str().to_owned()),
            filter,
            _live: live,
            decoder: Decoder::default(),
            database,
        }
    }
}

/// The pages of all streams, after or before a position.
pub(crate) fn pages(database: Arc<Database>, options: ReadAll) -> AllPages<Filtered> {
    let ReadAll { filter, from, direction, limit, .. } = options;
    AllPages::new(Filtered::new(database, filter, None), direction, from, limit)
}

/// The pages of a subscription, which begins after a position.
pub(crate) fn live(database: Arc<Database>, filter: Filter, after: Position) -> AllPages<Filtered> {
    let live = Some(database.recent.subscribe());
    AllPages::live(Filtered::new(database, filter, live), after)
}

impl AllEvents for Filtered {
    fn horizon(&self) -> &Horizon {
        &self.database.horizon
    }

    fn is_scan(&self) -> bool {
        matches!(self.access, Access::Scan)
    }

    async fn last_position(&self) -> Result<Position> {
        self.database.last_position().await
    }

    async fn nearest(&self, position: Position, forwards: bool) -> Result<Position> {
        self.database.nearest(position, forwards).await
    }

    async fn between(
        &mut self,
        low: Position,
        high: Position,
        forwards: bool,
        limit: Option<u64>,
    ) -> Result<PageRows> {
        let sql = &self.database.sql;
        let text = match (&self.access, forwards) {
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
        pages
            .fetch(&mut self.decoder, None, limit, include_system, text, |statement, most| {
                let statement = statement.bind(low.to_i64()).bind(high.to_i64()).bind(most);
                match access {
                    Access::Everything => statement,
                    Access::Types => statement.bind(types),
                    Access::Category(category) => statement.bind(types).bind(prefix).bind(category),
                    Access::Scan => statement.bind(types).bind(prefix),
                }
            })
            .await
    }

    async fn has_none(&self, after: Position, up_to: Position) -> bool {
        let filter = &self.filter;
        let passes = |event: &Touched| filter.matches(&event.stream, &event.event_type);
        match self.access {
            Access::Everything => false,
            _ => self.database.recent.has_none(after, up_to, passes).await,
        }
    }
}
