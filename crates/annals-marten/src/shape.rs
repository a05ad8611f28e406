//! What Marten's tables look like: it differs by the options and the version of the .NET program.

use annals_core::{Error, ErrorKind, Result};
use annals_postgres_shared::{error::driver, sql::quoted};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

/// The type of stream ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    String,
    Guid,
}

/// What was found in Marten's schema.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) ids: Ids,
    /// Whether several tenants share the tables.
    pub(crate) conjoined: bool,
    /// Whether archived streams have a partition of their own.
    pub(crate) partitioned: bool,
    /// Whether the table `mt_streams_identity` is there.
    pub(crate) has_identity: bool,
    pub(crate) stream_columns: Vec<String>,
    pub(crate) event_columns: Vec<String>,
    pub(crate) appends: Appends,
}

/// How the .NET program appends, as far as the database shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appends {
    /// In mode `QuickWithServerTimestamps`.
    Quick,
    /// In mode `Quick` or `Rich`.
    QuickOrRich,
    /// The function with which it appends is not there.
    Unknown,
}

/// The columns that are known. One that annals does not know may be there if it has a default.
const EVENT_COLUMNS: [&str; 17] = [
    "seq_id",
    "id",
    "stream_id",
    "version",
    "data",
    "bdata",
    "type",
    "timestamp",
    "tenant_id",
    "mt_dotnet_type",
    "correlation_id",
    "causation_id",
    "headers",
    "user_name",
    "is_skipped",
    "tags",
    "is_archived",
];
const STREAM_COLUMNS: [&str; 10] = [
    "id",
    "type",
    "version",
    "timestamp",
    "created",
    "tenant_id",
    "snapshot",
    "snapshot_version",
    "compacted_version",
    "is_archived",
];

/// Looks at Marten's schema. `None` if its tables are not there.
///
/// # Errors
/// [`ErrorKind::Incompatible`] for tables beside which a store cannot keep its promises.
pub(crate) async fn look(connection: &mut PgConnection, schema: &str) -> Result<Option<Shape>> {
    let found = Found::read(connection, schema).await.map_err(driver)?;
    let [Some(streams), Some(events), Some(_)] =
        ["mt_streams", "mt_events", "mt_events_sequence"].map(|name| found.table(name))
    else {
        return Ok(None);
    };
    let refuse = |what: String| {
        let message =
            format!("{what}; annals cannot append to the schema {schema:?} beside Marten");
        Err(Error::new(ErrorKind::Incompatible, message))
    };
    if let Some((increment, cache)) = found.sequence
        && (increment, cache) != (1, 1)
    {
        return refuse(format!(
            "the sequence mt_events_sequence has increment {increment} and cache {cache}, so that \
             numbers are not given in order"
        ));
    }
    for table in [streams, events] {
        if table.is_secured {
            return refuse(format!("row security applies to the table {}", table.name));
        }
        match table.partitioned_by.as_str() {
            "" | "LIST (is_archived)" => {}
            by => {
                return refuse(format!(
                    "the table {} is partitioned by {by}, so that the numbers of events are not \
                     unique",
                    table.name
                ));
            }
        }
        let known: &[&str] =
            if table.name == "mt_events" { &EVENT_COLUMNS } else { &STREAM_COLUMNS };
        let unknown = table
            .columns
            .iter()
            .find(|column| column.is_required && !known.contains(&column.name.as_str()));
        if let Some(column) = unknown {
            return refuse(format!(
                "the table {} has the column {:?}, which this version of annals does not know",
                table.name, column.name
            ));
        }
    }
    let missing =
        ["seq_id", "id", "stream_id", "version", "data", "type", "timestamp", "tenant_id"]
            .into_iter()
            .chain(["mt_dotnet_type", "is_archived"])
            .find(|name| events.column(name).is_none());
    if let Some(name) = missing {
        return refuse(format!("the table mt_events has no column {name:?}"));
    }
    if !found.judges_versions {
        return refuse("no unique index of mt_events has stream_id and version".to_owned());
    }
    let ids = match streams.column("id").map(|column| column.sql_type.as_str()) {
        Some("uuid") => Ids::Guid,
        Some("character varying" | "text") => Ids::String,
        other => return refuse(format!("the ids of streams have the type {other:?}")),
    };
    Ok(Some(Shape {
        ids,
        conjoined: found.stream_key.iter().any(|column| column == "tenant_id"),
        partitioned: !events.partitioned_by.is_empty(),
        has_identity: found.table("mt_streams_identity").is_some(),
        stream_columns: streams.names(),
        event_columns: events.names(),
        appends: match &found.append_arguments {
            None => Appends::Unknown,
            Some(names) if names.iter().any(|name| name == "timestamps") => Appends::Quick,
            Some(_) => Appends::QuickOrRich,
        },
    }))
}

/// What the catalogue says.
struct Found {
    tables: Vec<Table>,
    /// The increment and the cache of the sequence.
    sequence: Option<(i64, i64)>,
    /// The columns of the primary key of `mt_streams`.
    stream_key: Vec<String>,
    /// Whether a unique index has the stream and the version of events.
    judges_versions: bool,
    /// The names of the arguments of `mt_quick_append_events`, if it is there.
    append_arguments: Option<Vec<String>>,
}

struct Table {
    name: String,
    is_secured: bool,
    partitioned_by: String,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    sql_type: String,
    /// Whether a row needs a value.
    is_required: bool,
}

impl Table {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }
}

impl Found {
    fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    async fn read(connection: &mut PgConnection, schema: &str) -> sqlx::Result<Self> {
        // The schema is a plain name, so the literals need no escapes. Simple queries leave no
        // prepared statement behind in a pooler.
        let of_schema = "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                         WHERE n.nspname =";
        let mut rows = async |text: String| {
            sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(&mut *connection).await
        };
        let tables = rows(format!(
            "SELECT c.relname::text, pg_catalog.row_security_active(c.oid), \
                 coalesce(pg_catalog.pg_get_partkeydef(c.oid), '') \
             FROM pg_catalog.pg_class AS c {of_schema} '{schema}' AND c.relname IN \
                 ('mt_streams', 'mt_events', 'mt_events_sequence', 'mt_streams_identity')"
        ));
        let table = |row: &PgRow| {
            let columns = Vec::new();
            let (name, is_secured) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Table { name, is_secured, partitioned_by: row.try_get(2)?, columns })
        };
        let mut tables: Vec<Table> =
            tables.await?.iter().map(table).collect::<sqlx::Result<_>>()?;
        let columns = rows(format!(
            "SELECT c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, NULL), \
                 a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
             FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid \
             {of_schema} '{schema}' AND c.relname IN ('mt_streams', 'mt_events') \
                 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
        ));
        for row in columns.await? {
            let of: String = row.try_get(0)?;
            if let Some(table) = tables.iter_mut().find(|table| table.name == of) {
                let (name, sql_type) = (row.try_get(1)?, row.try_get(2)?);
                table.columns.push(Column { name, sql_type, is_required: row.try_get(3)? });
            }
        }
        let sequence = rows(format!(
            "SELECT s.seqincrement, s.seqcache FROM pg_catalog.pg_sequence AS s \
             JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid {of_schema} '{schema}' \
                 AND c.relname = 'mt_events_sequence'"
        ));
        let sequence = match sequence.await?.first() {
            Some(row) => Some((row.try_get(0)?, row.try_get(1)?)),
            None => None,
        };
        let indexes = rows(format!(
            "SELECT c.relname::text, i.indisprimary, (SELECT pg_catalog.array_agg(a.attname::text) \
                 FROM pg_catalog.pg_attribute AS a \
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) \
             FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid \
             {of_schema} '{schema}' AND c.relname IN ('mt_streams', 'mt_events') \
                 AND i.indisunique AND i.indisvalid"
        ));
        let (mut stream_key, mut judges_versions) = (Vec::new(), false);
        for row in indexes.await? {
            let (of, is_primary): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
            let columns: Vec<String> = row.try_get(2)?;
            let has = |name: &str| columns.iter().any(|column| column == name);
            if of == "mt_events" {
                judges_versions |= has("stream_id") && has("version");
            } else if is_primary {
                stream_key = columns;
            }
        }
        let functions = rows(format!(
            "SELECT p.proargnames FROM pg_catalog.pg_proc AS p \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
             WHERE n.nspname = '{schema}' AND p.proname = 'mt_quick_append_events'"
        ));
        let append_arguments = match functions.await?.first() {
            Some(row) => Some(row.try_get(0)?),
            None => None,
        };
        Ok(Self { tables, sequence, stream_key, judges_versions, append_arguments })
    }
}

/// Makes the tables that a .NET program with default options makes.
pub(crate) async fn create(connection: &mut PgConnection, schema: &str, ids: Ids) -> Result<()> {
    let layout = include_str!("../schema/layout.sql");
    let text = layout
        .replace("{marten}", &quoted(schema))
        .replace("{id}", if ids == Ids::Guid { "uuid" } else { "varchar" });
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop).map_err(driver)
}
