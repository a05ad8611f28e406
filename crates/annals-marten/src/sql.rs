//! Every statement on Marten's tables and on annals' own. The names of the schemas are part of the text;
//! values are always bound.

use std::sync::Arc;

pub(crate) use annals_postgres_shared::sql::{query, quoted};

use crate::{config::MartenOptions, shape::Ids};

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// The statements of one store.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $($(#[$doc])* pub(crate) $name: Arc<str>,)*
        }

        impl Sql {
            pub(crate) fn new(options: &MartenOptions, ids: Ids) -> Self {
                let (schema, marten) = (quoted(options.own_schema()), quoted(&options.schema));
                // A Guid alone is not the whole name of a stream.
                let named = match ids {
                    Ids::Guid => ("AND e.stream = $1", "AND s.name = $1"),
                    Ids::String => ("", ""),
                };
                let fill = |text: &str| {
                    text.replace("{and_stream}", named.0)
                        .replace("{and_name}", named.1)
                        .replace("{schema}", &schema)
                        .replace("{marten}", &marten)
                        .into()
                };
                Self { $($name: fill($text),)* }
            }
        }
    };
}

/// The last number that the sequence has given, 0 if it has given none; NULL if the role may not
/// know it.
macro_rules! last_given {
    () => {
        "CASE WHEN pg_catalog.has_sequence_privilege( \
             '{marten}.mt_events_sequence', 'USAGE, SELECT') \
             THEN coalesce(pg_catalog.pg_sequence_last_value( \
                 '{marten}.mt_events_sequence'::pg_catalog.regclass), 0) END"
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
    positions: concat!("SELECT coalesce(max(seq_id), 0), ", last_given!(),
        " FROM {marten}.mt_events");
    append: "SELECT outcome, states, versions, deletions, are_empty, bases, replays, positions \
        FROM {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::jsonb[], $11, $12, \
            $13::text[]::jsonb[], $14, $15, $16)";
    horizon: concat!("SELECT settled, visible, in_flight, pg_is_in_recovery(), ", last_given!(), " \
        FROM {schema}.horizon($1, $2, false)");
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
            AND NOT e.mt_dotnet_type ^@ 'JasperFx.Events.Tombstone,' \
            AND NOT e.mt_dotnet_type ^@ 'Marten.Events.Operations.Tombstone,' \
        ORDER BY e.type, e.seq_id DESC";
    head: "SELECT s.state, s.version, s.deleted_at, s.first_version FROM {schema}.streams AS s \
        WHERE s.key = {schema}.key_of($1) AND s.name = $1";
    list_streams: "SELECT s.name, s.state, s.version, s.deleted_at, s.first_version \
        FROM {schema}.streams AS s WHERE s.name COLLATE \"C\" > $1 \
        ORDER BY s.name COLLATE \"C\" LIMIT $2";
    /// The version of a stream at a position, removed or not.
    version_at: "SELECT e.version FROM {marten}.mt_events AS e \
        WHERE e.stream_id = {schema}.key_of($1) AND e.seq_id <= $2 \
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

/// Whether a stream was not deleted since it had a version, as `StreamHead::was_deleted_since` says.
pub(crate) const SNAPSHOT_IS_KEPT: &str = "NOT EXISTS (SELECT FROM {schema}.streams AS s \
    WHERE s.key = {schema}.key_of($1) AND s.name = $1 \
        AND (s.state = 2 OR s.deleted_at > 0 AND {version} <= s.deleted_at))";
