//! Reads all streams, or those that a filter lets through.

use std::{collections::BTreeSet, sync::Arc};

use annals_core::{EventType, Filter, Position, ReadAll, Result};
use annals_postgres_shared::{
    horizon::Horizon,
    page::PageRows,
    read_all::{AllEvents, AllPages},
    rows::Decoder,
};

use crate::database::Database;

/// What a filter asks for. No index of Marten helps: a statement looks at every event.
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

/// The events of all streams that a filter lets through.
pub(crate) struct Filtered {
    database: Arc<Database>,
    wanted: Option<Wanted>,
    include_system: bool,
    decoder: Decoder,
}

impl Filtered {
    fn new(database: Arc<Database>, filter: &Filter) -> Self {
        let (wanted, include_system) = (Wanted::of(filter), filter.include_system);
        Self { database, wanted, include_system, decoder: Decoder::default() }
    }
}

/// The pages of all streams, after or before a position.
pub(crate) fn pages(database: Arc<Database>, options: ReadAll) -> AllPages<Filtered> {
    let ReadAll { filter, from, direction, limit, .. } = options;
    AllPages::new(Filtered::new(database, &filter), direction, from, limit)
}

/// The pages of a subscription, which begins after a position.
pub(crate) fn live(
    database: Arc<Database>,
    filter: &Filter,
    after: Position,
) -> AllPages<Filtered> {
    AllPages::live(Filtered::new(database, filter), after)
}

impl AllEvents for Filtered {
    fn horizon(&self) -> &Horizon {
        &self.database.horizon
    }

    fn is_scan(&self) -> bool {
        self.wanted.is_some()
    }

    async fn last_position(&self) -> Result<Position> {
        self.database.last_position().await
    }

    async fn between(
        &mut self,
        low: Position,
        high: Position,
        forwards: bool,
        limit: Option<u64>,
    ) -> Result<PageRows> {
        let sql = &self.database.sql;
        let text = match (&self.wanted, forwards) {
            (None, true) => &sql.all_forwards,
            (None, false) => &sql.all_backwards,
            (Some(_), true) => &sql.scan_forwards,
            (Some(_), false) => &sql.scan_backwards,
        };
        let (wanted, pages) = (&self.wanted, &self.database.pages);
        pages
            .fetch(&mut self.decoder, None, limit, self.include_system, text, |statement, most| {
                let statement = statement.bind(low.to_i64()).bind(high.to_i64()).bind(most);
                match wanted {
                    None => statement,
                    Some(Wanted { types, prefixes: [prefix, category] }) => {
                        statement.bind(types).bind(prefix).bind(category)
                    }
                }
            })
            .await
    }

    async fn has_none(&self, _after: Position, _up_to: Position) -> bool {
        false
    }
}
