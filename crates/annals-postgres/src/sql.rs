//! Every statement on the tables of a store. The name of the schema is part of the text; values are
//! always bound.

use std::sync::Arc;

use annals_postgres_shared::last_given;
pub(crate) use annals_postgres_shared::sql::{Statement, query, quoted};

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

/// The columns that `rows::Decoder::event` reads, in this order.
macro_rules! event_columns {
    () => {
        "e.position, e.version, e.recorded_at, e.id, e.flags, e.type, e.data, e.metadata"
    };
}

/// Joins the stream of each event. If the planner guesses that a filter leaves few events, it would
/// begin with the streams and read all of their events; `OFFSET 0` prevents that.
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

/// Events of all streams between two positions. Removed events may still have their rows.
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

/// Events of one category between two positions. If the planner guesses that many events are of
/// this category, it would read the index of positions and pass over the events of all other
/// categories. So the condition and the order are those of the index of categories.
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

/// Events of several types between two positions. Reads up to the limit of each type by the index
/// of types, as `of_category` reads a category, and takes the first of all these.
macro_rules! of_types {
    ($order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            ", s.name FROM ( \
                 SELECT f.position FROM pg_catalog.unnest($4::text[]) AS t (type) CROSS JOIN LATERAL ( \
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
    store: "SELECT lock_key, schema FROM {schema}.store";
    /// Notices that another server has taken over.
    follow_server: "SELECT {schema}.follow_server(true)";
    follow_server_in_transaction: "SELECT {schema}.follow_server(false)";
    /// The same, and a notification that the server sends when the transaction is committed.
    follow_server_and_notify: "SELECT {schema}.follow_server(false), pg_catalog.pg_notify($1, '')";
    /// The greatest position of an event, and the last one that the sequence has given, unless the
    /// role may not know it.
    positions: concat!("SELECT coalesce(max(position), 0), ", last_given!("{schema}.positions"), " \
        FROM {schema}.events");
    append: "SELECT written, states, versions, deletions, seen_at, replays, positions \
        FROM {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    append_one: "SELECT written, stream_state, stream_version, deletion, seen, replay, event_position \
        FROM {schema}.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    import: "SELECT written, states, versions, removals \
        FROM {schema}.import($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    /// The ids of several streams' events, each stream between two versions.
    ids_between: "SELECT a.number, f.version, f.id \
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY \
            AS a (name, first, last, number) \
        CROSS JOIN LATERAL (SELECT e.version, e.id FROM {schema}.events AS e \
            JOIN {schema}.streams AS s ON s.id = e.stream \
            WHERE s.name = a.name AND e.version BETWEEN a.first AND a.last \
                AND e.version > s.removed_to OFFSET 0) AS f";
    horizon: concat!("SELECT settled, visible, in_flight, pg_is_in_recovery(), ", last_given!("{schema}.positions"), ", \
        (SELECT losses FROM {schema}.store WHERE only_row) FROM {schema}.horizon($1, $2)");
    /// Whether one transaction has written events on both sides of a position. An append takes its
    /// positions within a moment, so that they are near each other.
    is_within_append: "SELECT EXISTS (SELECT FROM {schema}.events AS b \
        JOIN {schema}.events AS a ON a.xmin = b.xmin \
        WHERE b.position <= $1 AND b.position > $1 - 10000 \
            AND a.position > $1 AND a.position <= $1 + 10000)";
    /// Which streams and types the events between two positions have.
    touched: concat!("SELECT e.position, s.name, e.type FROM {schema}.events AS e ",
        stream_of!("e"), "WHERE e.position > $1 AND e.position <= $2 ORDER BY e.position LIMIT $3");
    remove: "SELECT {schema}.remove($1, $2, $3, $4, $5, $6, $7)";
    /// Deletes some of the events that were removed. If the store's last event is one of them, notes its
    /// position: a server that takes over must not think that it lacks that event.
    clean_up: "WITH deleted AS (DELETE FROM {schema}.events WHERE position = ANY (ARRAY( \
            SELECT e.position FROM {schema}.events AS e \
            JOIN {schema}.streams AS s ON s.id = e.stream \
            WHERE s.name = $1 AND e.version <= s.removed_to ORDER BY e.version LIMIT $2 \
        )) RETURNING position), last AS MATERIALIZED (SELECT max(position) AS position FROM deleted), \
        noted AS (UPDATE {schema}.store SET removed = last.position FROM last \
            WHERE only_row AND last.position >= (SELECT max(position) FROM {schema}.events)) \
        SELECT count(*) FROM deleted";

    head: "SELECT s.state, greatest(s.removed_to, (SELECT max(e.version) \
        FROM {schema}.events AS e WHERE e.stream = s.id)), s.removed_to, s.deleted_at \
        FROM {schema}.streams AS s WHERE s.name = $1";
    list_streams: "SELECT s.name, s.state, greatest(s.removed_to, (SELECT max(e.version) \
        FROM {schema}.events AS e WHERE e.stream = s.id)), s.removed_to, s.deleted_at \
        FROM {schema}.streams AS s WHERE s.name > $1 ORDER BY s.name LIMIT $2";
    /// The position of the first event from a position on, and of the last one up to a position.
    next_position: "SELECT min(position) FROM {schema}.events WHERE position >= $1";
    previous_position: "SELECT max(position) FROM {schema}.events WHERE position <= $1";
    /// The greatest position that can be seen.
    last_position: "SELECT coalesce(max(position), 0) FROM {schema}.events";
    /// The version of a stream at a position. Begins at the end of the stream, since most positions
    /// that are asked for are near it.
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
    /// No index helps here, so the two positions must not be far from each other.
    scan_forwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) AND s.name ^@ $5", "");
    scan_backwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) AND s.name ^@ $5", "DESC");
}
