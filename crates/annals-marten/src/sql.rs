//! Every statement on Marten's tables and on annals' own. The names of the schemas are part of the text;
//! values are always bound.

use std::sync::Arc;

use annals_postgres_shared::last_given;
pub(crate) use annals_postgres_shared::sql::{query, quoted};

use crate::{
    config::MartenOptions,
    shape::{Ids, Shape},
    words,
};

/// Whether an event is one of Marten's tombstones. Their event type is what the program calls them.
pub(crate) const IS_TOMBSTONE: &str = "e.mt_dotnet_type ^@ 'JasperFx.Events.Tombstone,' \
    OR e.mt_dotnet_type ^@ 'Marten.Events.Operations.Tombstone,'";

/// How statements name what annals keeps beside Marten's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The views and functions of annals' own schema.
    Schema,
    /// Its tables, for a store that creates nothing; they may be missing.
    Tables { are_there: bool },
}

/// [`Sql::horizon`] without the function.
const HORIZON: &str = include_str!("../schema/horizon.sql");

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// The statements of one store.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $($(#[$doc])* pub(crate) $name: Arc<str>,)*
        }

        impl Sql {
            pub(crate) fn new(options: &MartenOptions, shape: &Shape, own: Own) -> Self {
                let (schema, marten) = (quoted(options.own_schema()), quoted(&options.schema));
                // A Guid alone is not the whole name of a stream.
                let named = match shape.ids {
                    Ids::Guid => ("AND e.stream = $1", "AND s.name = $1"),
                    Ids::String => ("", ""),
                };
                let in_advance = if options.gap_wait.is_some() { "true" } else { "false" };
                let and_tenant = words::of_tenant(shape, options, "e");
                let fill = |text: &str| {
                    let text = text
                        .replace("{and_stream}", named.0)
                        .replace("{and_name}", named.1)
                        .replace("{in_advance}", in_advance)
                        .replace("{and_tenant}", &and_tenant)
                        .replace("{is_tombstone}", IS_TOMBSTONE)
                        .replace("{last_given}", last_given!("{marten}.mt_events_sequence"));
                    match own {
                        Own::Schema => text.replace("{schema}", &schema).replace("{marten}", &marten),
                        Own::Tables { are_there } => words::alone(&text, shape, options, are_there),
                    }
                };
                let mut sql = Self { $($name: fill($text).into(),)* };
                if own != Own::Schema {
                    sql.horizon = fill(HORIZON).into();
                }
                if options.gap_wait.is_some() {
                    sql.version_at = fill(VERSION_AT_IN_ADVANCE).into();
                }
                sql
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

/// Events of all streams between two positions.
macro_rules! of_all {
    ($and:literal, $order:literal) => {
        concat!(
            "SELECT ",
            event_columns!(),
            ", e.stream FROM {schema}.events AS e WHERE e.position > $1 AND e.position < $2 ",
            $and,
            " ORDER BY e.position ",
            $order,
            " LIMIT $3"
        )
    };
}

statements! {
    /// The greatest number of an event, and the last one that the sequence has given.
    positions: concat!("SELECT coalesce(max(seq_id), 0), ", last_given!("{marten}.mt_events_sequence"),
        " FROM {marten}.mt_events");
    append: "SELECT outcome, states, versions, deletions, are_empty, bases, replays, positions \
        FROM {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::jsonb[], $11, $12, \
            $13::text[]::jsonb[], $14, $15, $16)";
    horizon: concat!("SELECT settled, visible, in_flight, pg_is_in_recovery(), ", last_given!("{marten}.mt_events_sequence"), " \
        FROM {schema}.horizon($1, $2, {in_advance})");
    /// The gaps between two positions: the positions of the events before and after each.
    gaps: "SELECT g.low, g.high FROM ( \
            SELECT lag(e.seq_id, 1, $1) OVER (ORDER BY e.seq_id) AS low, e.seq_id AS high \
            FROM {marten}.mt_events AS e WHERE e.seq_id > $1 AND e.seq_id <= $2 \
        ) AS g WHERE g.high - g.low > 1";
    /// The positions of events in gaps, apart from some. A tombstone says that none will come.
    events_in_gaps: "SELECT DISTINCT e.seq_id FROM unnest($1::bigint[], $2::bigint[]) AS g (low, high) \
        JOIN {marten}.mt_events AS e ON e.seq_id > g.low AND e.seq_id < g.high \
        WHERE e.seq_id <> ALL ($3) AND ({is_tombstone}) IS NOT TRUE {and_tenant} ORDER BY 1 LIMIT 100";
    /// Whether one transaction has written events on both sides of a position. An append takes its
    /// positions within a moment, so that they are near each other.
    is_within_append: "SELECT EXISTS (SELECT FROM {marten}.mt_events AS b \
        JOIN {marten}.mt_events AS a ON a.xmin = b.xmin \
        WHERE b.seq_id <= $1 AND b.seq_id > $1 - 10000 \
            AND a.seq_id > $1 AND a.seq_id <= $1 + 10000)";
    /// The greatest number that can be seen: whether other programs have written.
    last_position: "SELECT coalesce(max(seq_id), 0) FROM {marten}.mt_events";
    remove: "SELECT {schema}.remove($1, $2, $3, $4, $5, $6)";
    /// The .NET types that events of these types had last.
    dotnet_types: "SELECT DISTINCT ON (e.type) e.type::text, e.mt_dotnet_type::text \
        FROM {marten}.mt_events AS e \
        WHERE e.seq_id > (SELECT max(m.seq_id) FROM {marten}.mt_events AS m) - $2 \
            AND e.type = ANY ($1) AND e.mt_dotnet_type <> '' \
            AND NOT ({is_tombstone}) \
        ORDER BY e.type, e.seq_id DESC";
    head: "SELECT s.state, s.version, s.deleted_at, s.first_version FROM {schema}.streams AS s \
        WHERE s.key = {schema}.key_of($1) AND s.name = $1";
    list_streams: "SELECT s.name, s.state, s.version, s.deleted_at, s.first_version \
        FROM {schema}.streams AS s WHERE s.name COLLATE \"C\" > $1 \
        ORDER BY s.name COLLATE \"C\" LIMIT $2";
    /// The version of a stream at a position, removed or not.
    version_at: "SELECT e.version FROM {marten}.mt_events AS e \
        WHERE e.stream_id = {schema}.key_of($1) {and_tenant} AND e.seq_id <= $2 \
            AND EXISTS (SELECT FROM {schema}.streams AS s \
                WHERE s.key = {schema}.key_of($1) AND s.name = $1) \
        ORDER BY e.version DESC LIMIT 1";
    /// The ids of several streams' events, each stream between two versions.
    ids_between: "SELECT a.number, f.version, f.id \
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY \
            AS a (name, first, last, number) \
        CROSS JOIN LATERAL (SELECT e.version, e.id FROM {schema}.events AS e \
            WHERE e.key = {schema}.key_of(a.name) \
                AND e.version BETWEEN a.first AND a.last OFFSET 0) AS f";

    stream_forwards: concat!("SELECT ", event_columns!(), " FROM {schema}.events AS e \
        WHERE e.key = {schema}.key_of($1) {and_stream} AND e.version >= $2 \
        ORDER BY e.version LIMIT $3");
    stream_backwards: concat!("SELECT ", event_columns!(), " FROM {schema}.events AS e \
        WHERE e.key = {schema}.key_of($1) {and_stream} AND e.version <= $2 \
        ORDER BY e.version DESC LIMIT $3");
    all_forwards: of_all!("", "");
    all_backwards: of_all!("", "DESC");
    /// Marten has no index that helps here, so the two positions must not be far from each other.
    scan_forwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) \
        AND e.stream ^@ $5 AND e.stream ^@ $6", "");
    scan_backwards: of_all!("AND ($4::text[] IS NULL OR e.type = ANY ($4)) \
        AND e.stream ^@ $5 AND e.stream ^@ $6", "DESC");
}

/// [`Sql::version_at`] if the positions of a stream's events need not be in the order of their versions: the
/// version of the event at that position, else the last one of which no earlier event stands behind it.
const VERSION_AT_IN_ADVANCE: &str = "SELECT v.version FROM (SELECT coalesce( \
        (SELECT e.version FROM {marten}.mt_events AS e \
            WHERE e.stream_id = {schema}.key_of($1) {and_tenant} AND e.seq_id = $2), \
        (SELECT e.version - 1 FROM {marten}.mt_events AS e \
            WHERE e.stream_id = {schema}.key_of($1) {and_tenant} AND e.seq_id > $2 \
            ORDER BY e.version LIMIT 1), \
        (SELECT e.version FROM {marten}.mt_events AS e \
            WHERE e.stream_id = {schema}.key_of($1) {and_tenant} \
            ORDER BY e.version DESC LIMIT 1)) AS version \
    WHERE EXISTS (SELECT FROM {schema}.streams AS s \
        WHERE s.key = {schema}.key_of($1) AND s.name = $1)) AS v WHERE v.version IS NOT NULL";

/// Whether a stream was not deleted since it had a version, as `StreamHead::was_deleted_since` says.
pub(crate) const SNAPSHOT_IS_KEPT: &str = "NOT EXISTS (SELECT FROM {schema}.streams AS s \
    WHERE s.key = {schema}.key_of($1) AND s.name = $1 \
        AND (s.state = 2 OR s.deleted_at > 0 AND {version} <= s.deleted_at))";
