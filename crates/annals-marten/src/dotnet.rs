//! The .NET types of event types.
//!
//! A .NET program finds the class of an event by its type if that is registered there, else by the .NET
//! type in the row. So annals writes the .NET type where it knows one: from the options, else the one of
//! the newest event of that type.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use annals_core::{Error, ErrorKind, EventType, Result};
use annals_postgres_shared::connections::Connections;
use sqlx::Row;

use crate::{
    error::driver,
    sql::{Sql, query},
};

/// How many numbers are searched for an event of a type, from the end: no index helps.
const SEARCHED: i64 = 100_000;
/// How long a type that has none is not looked up again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct DotnetTypes {
    refuse_unknown: bool,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    /// Empty if the type has none.
    dotnet_type: Arc<str>,
    looked: Instant,
}

impl DotnetTypes {
    pub(crate) fn new(given: &BTreeMap<String, String>, refuse_unknown: bool) -> Self {
        let known = |(event_type, dotnet_type): (&String, &String)| {
            let dotnet_type = dotnet_type.as_str().into();
            (event_type.clone(), Known { dotnet_type, looked: Instant::now() })
        };
        Self { refuse_unknown, known: Mutex::new(given.iter().map(known).collect()) }
    }

    /// The .NET type of each of the event types, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if one has none, and such types are to be refused.
    pub(crate) async fn of<'a>(
        &self,
        connections: &Arc<Connections>,
        sql: &Sql,
        event_types: impl Iterator<Item = &'a EventType> + Clone,
    ) -> Result<Vec<Arc<str>>> {
        let missing: BTreeSet<&str> = {
            let known = self.known();
            let is_known = |name: &&str| {
                known.get(*name).is_some_and(|known| {
                    !known.dotnet_type.is_empty() || known.looked.elapsed() < UNKNOWN_FOR
                })
            };
            event_types.clone().map(EventType::as_str).filter(|name| !is_known(name)).collect()
        };
        if !missing.is_empty() {
            self.look_up(connections, sql, missing).await?;
        }
        let known = self.known();
        event_types
            .map(|event_type| {
                let found = known.get(event_type.as_str());
                let found = found.map_or_else(|| "".into(), |known| known.dotnet_type.clone());
                if self.refuse_unknown && found.is_empty() {
                    return Err(unknown(event_type));
                }
                Ok(found)
            })
            .collect()
    }

    async fn look_up(
        &self,
        connections: &Arc<Connections>,
        sql: &Sql,
        missing: BTreeSet<&str>,
    ) -> Result<()> {
        let names: Vec<&str> = missing.into_iter().collect();
        let statement = || query(&sql.dotnet_types).bind(&names).bind(SEARCHED);
        let rows = connections.rows(statement).await.map_err(driver)?;
        let mut found = HashMap::new();
        for row in rows {
            let name: String = row.try_get(0).map_err(driver)?;
            found.insert(name, row.try_get::<String, _>(1).map_err(driver)?);
        }
        let mut known = self.known();
        for name in names {
            let dotnet_type: Arc<str> = found.remove(name).unwrap_or_default().into();
            let is_unknown = dotnet_type.is_empty();
            let new = Known { dotnet_type, looked: Instant::now() };
            if known.insert(name.to_owned(), new).is_none() && is_unknown {
                tracing::warn!(
                    event_type = name,
                    "no .NET type is known for this event type: a .NET program cannot read its \
                     streams until it registers the type"
                );
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(event_type: &EventType) -> Error {
    let message = format!(
        "no .NET type is known for the event type {:?}: no event has it yet; give it by \
         `dotnet_type.{event_type}` in the URL",
        event_type.as_str()
    );
    Error::new(ErrorKind::InvalidInput, message)
}
