//! Every statement on the tables, with the schema of the store put in. Values are always bound.

use std::sync::Arc;

use sqlx::{
    AssertSqlSafe, PgConnection, Postgres,
    postgres::{PgArguments, PgRow},
    query::Query,
};

/// The name of the schema as it stands in SQL text. It was checked to be a plain name.
pub(crate) fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// A statement with its values.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A statement of [`Sql`], prepared when a connection first runs it.
pub(crate) fn query<'q>(text: &Arc<str>) -> Statement<'q> {
    // The schema is the only thing put into a text, and it was checked.
    sqlx::query(AssertSqlSafe(text.clone()))
}

/// Runs a statement that answers with one row, to the very end of the answer: a statement that
/// writes has committed only then, while `fetch_one` returns with the row.
pub(crate) async fn one_row(
    statement: Statement<'_>,
    connection: &mut PgConnection,
) -> sqlx::Result<PgRow> {
    let rows = statement.fetch_all(connection).await?;
    rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// The statements of one store.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $($(#[$doc])* pub(crate) $name: Arc<str>,)*
        }

        impl Sql {
            pub(crate) fn new(schema: &str) -> Self {
                let schema = quoted(schema);
                Self { $($name: $text.replace("{schema}", &schema).into(),)* }
            }
        }
    };
}

/// What `rows::Decoder::event` reads, in its order.
macro_rules! event_columns {
    () => {
        "e.position, e.version, e.recorded_at, e.id, e.flags, e.type, e.data, e.metadata"
    };
}

/// The stream of each event. The planner must not begin with the streams, and look through all that
/// they have, where it guesses that a filter leaves few: `OFFSET 0` keeps it from that.
macro_rules! stream_of {
    ($event:literal) => {
        concat!(
            "CROSS JOIN LATERAL (SELECT name, removed_to FROM {schema}.streams \
             WHERE streams.id = ",
            $event,
            ".stream OFFSET 0) AS s "
        )
    };
}

/// Events of all streams, between two positions. What was removed may still have its row.
macro_rules! of_all {
    ($and:literal, $order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            ", s.name FROM {schema}.events AS e ",
            stream_of!("e"),
            "WHERE e.position > $1 AND e.position < $2 AND e.version > s.removed_to ",
            $and,
            " ORDER BY e.position ",
            $order,
            " LIMIT $3"
        )
    };
}

/// The same of one category. The planner must not take the index on positions, and walk past the
/// events of all other categories, where it guesses that many are of this one: so what is asked for
/// is a range of the index on categories, in its order.
macro_rules! of_category {
    ($order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            ", s.name FROM {schema}.events AS e ",
            stream_of!("e"),
            "WHERE (e.category, e.position) > ($6, $1) AND (e.category, e.position) < ($6, $2) \
                 AND e.category IS NOT NULL AND e.version > s.removed_to \
                 AND ($4::text[] IS NULL OR e.type = ANY ($4)) \
                 AND ($5::text IS NULL OR s.name ^@ $5) \
             ORDER BY e.category ",
            $order,
            ", e.position ",
            $order,
            " LIMIT $3"
        )
    };
}

/// The same of several types: as many as are asked for of each, as in [`of_category`]; then the
/// first of those.
macro_rules! of_types {
    ($order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            ", s.name FROM ( \
                 SELECT f.position FROM unnest($4::text[]) AS t (type) CROSS JOIN LATERAL ( \
                     SELECT i.position FROM {schema}.events AS i ",
            stream_of!("i"),
            "WHERE (i.type, i.position) > (t.type, $1) AND (i.type, i.position) < (t.type, $2) \
                         AND i.version > s.removed_to \
                     ORDER BY i.type ",
            $order,
            ", i.position ",
            $order,
            " LIMIT $3 \
                 ) AS f ORDER BY f.position ",
            $order,
            " LIMIT $3 \
             ) AS w JOIN {schema}.events AS e ON e.position = w.position ",
            stream_of!("e"),
            "ORDER BY e.position ",
            $order
        )
    };
}

statements! {
    store: "SELECT lock_key FROM {schema}.store";
    append: "SELECT written, states, versions, deletions, seen_at, positions \
        FROM {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    append_one: "SELECT written, stream_state, stream_version, deletion, seen, event_position \
        FROM {schema}.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    import: "SELECT written, states, versions, removals \
        FROM {schema}.import($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    /// The events of several streams between two versions: by the number of the stream.
    ids_between: "SELECT a.number, f.version, f.id \
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY \
            AS a (name, first, last, number) \
        CROSS JOIN LATERAL (SELECT e.version, e.id FROM {schema}.events AS e \
            JOIN {schema}.streams AS s ON s.id = e.stream \
            WHERE s.name = a.name AND e.version BETWEEN a.first AND a.last \
                AND e.version > s.removed_to OFFSET 0) AS f";
    horizon: "SELECT settled, visible, in_flight FROM {schema}.horizon($1, $2)";
    remove: "SELECT {schema}.remove($1, $2, $3, $4, $5, $6, $7)";
    /// Some of what was removed.
    clean_up: "WITH deleted AS (DELETE FROM {schema}.events WHERE position = ANY (ARRAY( \
            SELECT e.position FROM {schema}.events AS e \
            JOIN {schema}.streams AS s ON s.id = e.stream \
            WHERE s.name = $1 AND e.version <= s.removed_to ORDER BY e.version LIMIT $2 \
        )) RETURNING 1) SELECT count(*) FROM deleted";

    head: "SELECT s.state, greatest(s.removed_to, (SELECT max(e.version) \
        FROM {schema}.events AS e WHERE e.stream = s.id)), s.removed_to, s.deleted_at \
        FROM {schema}.streams AS s WHERE s.name = $1";
    list_streams: "SELECT s.name, s.state, greatest(s.removed_to, (SELECT max(e.version) \
        FROM {schema}.events AS e WHERE e.stream = s.id)), s.removed_to, s.deleted_at \
        FROM {schema}.streams AS s WHERE s.name > $1 ORDER BY s.name LIMIT $2";
    /// What is needed to answer a retry.
    ids_after: "SELECT e.version, e.id, e.position FROM {schema}.events AS e \
        JOIN {schema}.streams AS s ON s.id = e.stream \
        WHERE s.name = $1 AND e.version > $2 AND e.version > s.removed_to \
        ORDER BY e.version LIMIT $3";
    /// The greatest position that can be seen.
    last_position: "SELECT coalesce(max(position), 0) FROM {schema}.events";
    /// The version of a stream at a position, which most often is near its end.
    version_at: "SELECT e.version FROM {schema}.events AS e \
        JOIN {schema}.streams AS s ON s.id = e.stream \
        WHERE s.name = $1 AND e.position <= $2 ORDER BY e.version DESC LIMIT 1";

    stream_forwards: concat!("SELECT ", event_columns!(), " FROM {schema}.events AS e \
        JOIN {schema}.streams AS s ON s.id = e.stream \
        WHERE s.name = $1 AND e.version >= $2 AND e.version > s.removed_to \
        ORDER BY e.version LIMIT $3");
    stream_backwards: concat!("SELECT ", event_columns!(), " FROM {schema}.events AS e \
        JOIN {schema}.streams AS s ON s.id = e.stream \
        WHERE s.name = $1 AND e.version <= $2 AND e.version > s.removed_to \
        ORDER BY e.version DESC LIMIT $3");
    all_forwards: of_all!("", "");
    all_backwards: of_all!("", "DESC");
    category_forwards: of_category!("");
    category_backwards: of_category!("DESC");
    types_forwards: of_types!("");
    types_backwards: of_types!("DESC");
    /// By no index, and so between two positions that are not far from each other.
    scan_forwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) AND s.name ^@ $5", "");
    scan_backwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) AND s.name ^@ $5", "DESC");

    load_snapshot: "SELECT version, flags, data, metadata FROM {schema}.snapshots \
        WHERE stream = $1";
    save_snapshot: "INSERT INTO {schema}.snapshots AS kept (stream, version, flags, data, metadata) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (stream) DO UPDATE SET version = excluded.version, \
        flags = excluded.flags, data = excluded.data, metadata = excluded.metadata \
        WHERE excluded.version >= kept.version";
    delete_snapshot: "DELETE FROM {schema}.snapshots WHERE stream = $1";

    load_checkpoint: "SELECT position FROM {schema}.checkpoints WHERE subscriber = $1";
    save_checkpoint: "INSERT INTO {schema}.checkpoints AS kept (subscriber, position) \
        VALUES ($1, $2) ON CONFLICT (subscriber) \
        DO UPDATE SET position = greatest(kept.position, excluded.position) RETURNING position";
    set_checkpoint: "INSERT INTO {schema}.checkpoints (subscriber, position) VALUES ($1, $2) \
        ON CONFLICT (subscriber) DO UPDATE SET position = excluded.position";
    delete_checkpoint: "DELETE FROM {schema}.checkpoints WHERE subscriber = $1";
    /// The first checkpoint of a subscriber, and every later one: only if it is still what it was.
    begin_checkpoint: "INSERT INTO {schema}.checkpoints (subscriber, position) VALUES ($1, $2) \
        ON CONFLICT (subscriber) DO NOTHING";
    advance_checkpoint: "UPDATE {schema}.checkpoints SET position = $2 \
        WHERE subscriber = $1 AND position = $3";

    load_lease: "SELECT revision, token, ttl, holder FROM {schema}.leases WHERE name = $1";
    /// The first record of a lease, and every later one: only after the one before it.
    begin_lease: "INSERT INTO {schema}.leases AS kept (name, revision, token, ttl, holder) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING revision";
    swap_lease: "UPDATE {schema}.leases AS kept \
        SET revision = $2, token = $3, ttl = $4, holder = $5 \
        WHERE name = $1 AND revision = $2 - 1 RETURNING revision";
}
