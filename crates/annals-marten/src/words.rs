//! What stands in place of the words in `schema`, by what Marten's tables look like.

use annals_postgres_shared::sql::quoted;

use crate::{
    config::{MartenOptions, StreamType},
    shape::{Ids, Shape},
    sql::IS_TOMBSTONE,
};

/// Annals' own tables for a store that finds none and creates none: empty.
const NO_PAYLOADS: &str = "(SELECT NULL::bigint AS seq_id, NULL::smallint AS flags, \
    NULL::bytea AS data, NULL::bytea AS metadata, NULL::uuid AS digest, NULL::xid AS xmin WHERE false)";
const NO_NAMES: &str = "(SELECT NULL::uuid AS id, NULL::text AS name WHERE false)";
const NO_REMOVED: &str =
    "(SELECT NULL::{id} AS id, 0::bigint AS removed_to, 0::bigint AS deleted_at WHERE false)";

/// Base64, as PostgreSQL decodes it without an error.
const BASE64: &str = "'^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'";

/// A statement that uses none of the views and functions of annals' own schema. `has_own` says whether
/// its tables are there.
pub(crate) fn alone(text: &str, shape: &Shape, options: &MartenOptions, has_own: bool) -> String {
    let text = text
        .replace("{schema}.events", "({events_view})")
        .replace("{schema}.streams", "({streams_view})")
        .replace("{schema}.key_of($1)", "{key_of_first}")
        .replace("{events_view}", EVENTS)
        .replace("{streams_view}", STREAMS);
    let text = fill(&text, shape, options, 0);
    if has_own {
        return text;
    }
    let own = quoted(options.own_schema());
    let id = if shape.ids == Ids::Guid { "uuid" } else { "varchar" };
    [("payloads", NO_PAYLOADS), ("names", NO_NAMES), ("removed", NO_REMOVED)]
        .iter()
        .fold(text, |text, (table, by)| text.replace(&format!("{own}.{table}"), by))
        .replace("{id}", id)
}

/// The rows of a tenant, in the table with this alias: a condition that follows others.
pub(crate) fn of_tenant(shape: &Shape, options: &MartenOptions, alias: &str) -> String {
    match shape.conjoined {
        true => format!(" AND {alias}.tenant_id = {}", literal(options.tenant())),
        false => String::new(),
    }
}

const EVENTS: &str = include_str!("../schema/events.sql");
const STREAMS: &str = include_str!("../schema/streams.sql");

/// An id of a typed stream: the type, `-` and a Guid. Without a type: 32 hexadecimal digits.
const TYPED: &str = "'^.+-[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$'";
const UNTYPED: &str = "'^[0-9a-f]{32}$'";
/// The Guid of the stream of annals' tombstones. Marten takes a random one for each process.
const TOMBSTONES: &str = "'8ad2f1c4-5f6e-4c1b-9a57-616e6e616c73'";

/// Fills in the words. The result is SQL whose only parts that are not constant are plain names and
/// quoted literals.
pub(crate) fn fill(text: &str, shape: &Shape, options: &MartenOptions, key: i32) -> String {
    let tenant = literal(options.tenant());
    let of_tenant = |alias: &str| of_tenant(shape, options, alias);
    let has = |column: &str| shape.event_columns.iter().any(|known| known == column);
    let category = |name: &str| {
        format!("CASE WHEN strpos({name}, '-') > 0 THEN nullif(split_part({name}, '-', 1), '') END")
    };
    let is_guid = shape.ids == Ids::Guid;
    let guid = |of_guids: &str, of_strings: &str| {
        if is_guid { of_guids.to_owned() } else { of_strings.to_owned() }
    };
    let name = |id: &str| match shape.ids {
        Ids::String => format!("{id}::text"),
        Ids::Guid => format!(
            "coalesce(n.name, CASE WHEN s.type IS NULL THEN replace({id}::text, '-', '') \
             ELSE s.type || '-' || {id}::text END)"
        ),
    };
    let new_type = match options.stream_type {
        StreamType::Category => category("name"),
        StreamType::None => "NULL".to_owned(),
    };
    let same_row = if shape.partitioned { " AND s.is_archived = e.is_archived" } else { "" };
    let insert_name = |id: &str, name: &str| match shape.ids {
        Ids::String => String::new(),
        Ids::Guid => format!(
            "INSERT INTO {{schema}}.names (id, name) SELECT {id}, {name} \
             WHERE {name} !~ {TYPED} AND {name} !~ {UNTYPED} ON CONFLICT DO NOTHING;"
        ),
    };
    let key_of = |name: &str| {
        guid(
            &format!(
                "(CASE WHEN {name} ~ {TYPED} THEN right({name}, 36) WHEN {name} ~ {UNTYPED} \
                 THEN {name} ELSE md5('annals stream ' || {name}) END)::uuid"
            ),
            &format!("{name}::varchar"),
        )
    };
    let shown = |without_archived: &str, with_archived: &str| {
        if options.archived { with_archived } else { without_archived }.to_owned()
    };
    let bdata = if has("bdata") { "e.bdata" } else { "NULL::bytea" };
    let words: &[(&str, String)] = &[
        ("events_view", EVENTS.trim_end().to_owned()),
        ("streams_view", STREAMS.trim_end().to_owned()),
        ("key_of_first", key_of("$1")),
        ("key_of", key_of("name")),
        (
            "type_of",
            guid(
                &format!(
                    "(CASE WHEN name ~ {TYPED} THEN left(name, -37) WHEN name !~ {UNTYPED} \
                     THEN {new_type} END)::varchar"
                ),
                &format!("({new_type})::varchar"),
            ),
        ),
        ("name_of_event", name("e.stream_id")),
        ("name_of_stream", name("s.id")),
        (
            "streams_of_events",
            guid(
                &format!(
                    "LEFT JOIN {{marten}}.mt_streams AS s ON s.id = e.stream_id{}{same_row} \
                     LEFT JOIN {{schema}}.names AS n ON n.id = e.stream_id",
                    of_tenant("s")
                ),
                "",
            ),
        ),
        ("names_of_streams", guid("LEFT JOIN {schema}.names AS n ON n.id = s.id", "")),
        (
            "streams",
            if shape.partitioned {
                format!(
                    "(SELECT s.id, max(s.type) AS type, max(s.version) AS version, \
                     bool_or(s.is_archived) AS is_archived FROM {{marten}}.mt_streams AS s \
                     WHERE true{} GROUP BY s.id)",
                    of_tenant("s")
                )
            } else {
                format!(
                    "(SELECT s.id, s.type, s.version, s.is_archived IS TRUE AS is_archived \
                     FROM {{marten}}.mt_streams AS s WHERE true{})",
                    of_tenant("s")
                )
            },
        ),
        ("is_other_type", guid("head.name <> asked.name", "false")),
        ("insert_name", insert_name("keys[asked.number]", "asked.name")),
        ("insert_name_removed", insert_name("stream_key", "stream_name")),
        (
            "insert_identity",
            match (shape.has_identity, shape.conjoined) {
                (false, _) => String::new(),
                (true, false) => "INSERT INTO {marten}.mt_streams_identity (id) \
                                  VALUES (keys[asked.number]) ON CONFLICT DO NOTHING;"
                    .to_owned(),
                (true, true) => "INSERT INTO {marten}.mt_streams_identity (tenant_id, id) \
                                 VALUES ({tenant}, keys[asked.number]) ON CONFLICT DO NOTHING;"
                    .to_owned(),
            },
        ),
        ("tombstone_key", guid(&format!("{TOMBSTONES}::uuid"), "'mt_tombstone'")),
        ("meta_columns", meta_columns(&has)),
        ("meta_values", meta_values(&has, "g.number")),
        ("meta_of_one", meta_values(&has, "1")),
        // The id of a stream is its name, it has one row, and a row nowhere else.
        ("is_plain", (!is_guid && !shape.partitioned && !shape.has_identity).to_string()),
        ("f_tenant", of_tenant("f")),
        ("metadata", metadata(&has)),
        ("e_shown", shown("e.is_archived = false", "true")),
        ("s_closed", shown("s.is_archived", "false")),
        ("s_deleted", shown("coalesce(r.deleted_at, 0) = v.version", "false")),
        (
            "deleted_at",
            shown(
                "CASE WHEN s.is_archived THEN v.version WHEN r.deleted_at <= v.version \
                 THEN r.deleted_at ELSE 0 END",
                "0::bigint",
            ),
        ),
        (
            "first_shown",
            shown(" AND e.version > coalesce(r.removed_to, 0) AND e.is_archived = false", ""),
        ),
        ("listed", shown("s.is_archived OR v.version > 0", "v.version > 0")),
        (
            // Binary data, as `json::body` writes it. The first look tells it from nearly all other data.
            "is_wrapped",
            format!(
                "({bdata} IS NULL AND CASE WHEN e.data ->> '$binary' IS NULL THEN false \
                 WHEN jsonb_typeof(e.data -> '$binary') = 'string' AND e.data - '$binary' = '{{}}' \
                 THEN e.data ->> '$binary' ~ {BASE64} ELSE false END)"
            ),
        ),
        ("bdata", bdata.to_owned()),
        (
            "written",
            "(SELECT w.table FROM (VALUES ('{marten}.mt_events'::regclass::oid), \
             ('{marten}.mt_streams'::regclass::oid)) AS w (\"table\") UNION ALL SELECT i.inhrelid \
             FROM pg_inherits AS i WHERE i.inhparent IN ('{marten}.mt_events'::regclass, \
             '{marten}.mt_streams'::regclass))"
                .to_owned(),
        ),
        ("e_skipped", if has("is_skipped") { " AND e.is_skipped = false" } else { "" }.to_owned()),
        (
            "is_exact",
            "p.data IS NOT NULL AND (p.xmin = e.xmin OR p.digest = md5(e.data::text)::uuid)"
                .to_owned(),
        ),
        ("is_tombstone", IS_TOMBSTONE.to_owned()),
        ("archive_stream", archive_stream(shape)),
        ("e_tenant", of_tenant("e")),
        ("s_tenant", of_tenant("s")),
        ("tenant", tenant.clone()),
        ("id", guid("uuid", "varchar")),
        ("key", key.to_string()),
        ("schema_name", literal(options.own_schema())),
        ("schema", quoted(options.own_schema())),
        ("marten", quoted(&options.schema)),
    ];
    words.iter().fold(text.to_owned(), |text, (word, by)| text.replace(&format!("{{{word}}}"), by))
}

/// The columns for metadata that a .NET program has switched on, in the order of `meta_values`.
fn meta_columns(has: &dyn Fn(&str) -> bool) -> String {
    let columns = ["headers", "correlation_id", "causation_id"].into_iter();
    columns.filter(|column| has(column)).map(|column| format!(", {column}")).collect()
}

fn meta_values(has: &dyn Fn(&str) -> bool, number: &str) -> String {
    let values = [
        ("headers", "event_headers"),
        ("correlation_id", "correlations"),
        ("causation_id", "causations"),
    ];
    let values = values.into_iter().filter(|(column, _)| has(column));
    values.map(|(_, value)| format!(", {value}[{number}]")).collect()
}

/// The metadata of an event that a .NET program wrote: its headers, with what stands in columns.
fn metadata(has: &dyn Fn(&str) -> bool) -> String {
    let headers = match has("headers") {
        true => {
            "(CASE WHEN jsonb_typeof(e.headers) = 'object' THEN e.headers ELSE '{}'::jsonb END)"
        }
        false => "'{}'::jsonb",
    };
    let columns = [
        ("correlation_id", "$correlationId"),
        ("causation_id", "$causationId"),
        ("user_name", "$userName"),
    ];
    let columns = columns.into_iter().filter(|(column, _)| has(column));
    let named: Vec<_> = columns.map(|(column, name)| format!("'{name}', e.{column}")).collect();
    if named.is_empty() {
        return headers.to_owned();
    }
    format!("({headers} || jsonb_strip_nulls(jsonb_build_object({})))", named.join(", "))
}

/// Archives a stream with its events.
fn archive_stream(shape: &Shape) -> String {
    if !shape.partitioned {
        return "UPDATE {marten}.mt_events AS e SET is_archived = true \
                WHERE e.stream_id = stream_key{e_tenant} AND e.is_archived = false; \
                UPDATE {marten}.mt_streams AS s SET is_archived = true \
                WHERE s.id = stream_key{s_tenant};"
            .to_owned();
    }
    // A row cannot move to the other partition while events refer to it: copy, then delete.
    let copy = |table: &str, columns: &[String], of: &str| {
        let columns: Vec<_> = columns.iter().filter(|column| *column != "is_archived").collect();
        let list: String = columns.iter().map(|column| format!("\"{column}\", ")).collect();
        format!(
            "INSERT INTO {{marten}}.{table} ({list}is_archived) SELECT {list}true \
             FROM {{marten}}.{table} AS {of} AND {}.is_archived = false;",
            of.split(' ').next().unwrap_or_default()
        )
    };
    [
        copy("mt_streams", &shape.stream_columns, "s WHERE s.id = stream_key{s_tenant}"),
        copy("mt_events", &shape.event_columns, "e WHERE e.stream_id = stream_key{e_tenant}"),
        "DELETE FROM {marten}.mt_events AS e WHERE e.stream_id = stream_key{e_tenant} \
         AND e.is_archived = false;"
            .to_owned(),
        "DELETE FROM {marten}.mt_streams AS s WHERE s.id = stream_key{s_tenant} \
         AND s.is_archived = false;"
            .to_owned(),
    ]
    .concat()
}

/// A text as a literal of SQL, whatever is in it.
pub(crate) fn literal(text: &str) -> String {
    // `E''` means the same whatever `standard_conforming_strings` says.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
