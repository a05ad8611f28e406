//! Every statement on the tables. The prefix of the store is part of the text; values are bound.

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// The statements of one store.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $($(#[$doc])* pub(crate) $name: String,)*
        }

        impl Sql {
            pub(crate) fn new(prefix: &str) -> Self {
                Self { $($name: $text.replace("{prefix}", prefix),)* }
            }
        }
    };
}

macro_rules! event_columns {
    () => {
        "SELECT e.position, e.stream, e.version, e.id, e.type, e.recorded_at, e.kinds, e.data, \
         e.metadata FROM {prefix}_events e "
    };
}

/// Events between two positions (inclusive), of any type or of the types in a JSON array.
macro_rules! in_window {
    () => {
        "WHERE e.position BETWEEN ?1 AND ?2 \
         AND (?3 IS NULL OR e.type IN (SELECT value FROM json_each(?3))) "
    };
}

/// Events of the streams of a category, or with a prefix. A `CROSS JOIN` keeps the planner from
/// beginning with the streams, after which it would have to sort the events. `substr` compares byte
/// for byte, unlike `LIKE`.
macro_rules! of_streams {
    () => {
        "AND (?4 IS NULL OR s.category = ?4) \
         AND (?5 IS NULL OR substr(s.name, 1, length(?5)) = ?5) "
    };
}

statements! {
    /// The version of the schema.
    schema_version: "SELECT value FROM {prefix}_meta WHERE key = 'schema_version'";
    set_schema_version: "UPDATE {prefix}_meta SET value = ?1 WHERE key = 'schema_version'";
    /// The greatest position that any event ever had.
    last_position: "SELECT max((SELECT ifnull(max(position), 0) FROM {prefix}_events), \
        (SELECT value FROM {prefix}_meta WHERE key = 'position_floor'))";
    raise_floor: "UPDATE {prefix}_meta SET value = max(value, ?1) WHERE key = 'position_floor'";

    /// A stream, with the version and id of its last event.
    stream: "SELECT s.id, s.state, s.removed_to, s.deleted_at, e.version, e.id \
        FROM {prefix}_streams s LEFT JOIN {prefix}_events e ON e.stream = s.id AND e.version = \
        (SELECT max(version) FROM {prefix}_events WHERE stream = s.id) WHERE s.name = ?1";
    stream_row: "SELECT id FROM {prefix}_streams WHERE name = ?1";
    stream_name: "SELECT name FROM {prefix}_streams WHERE id = ?1";
    first_version: "SELECT min(version) FROM {prefix}_events WHERE stream = ?1";
    id_at: "SELECT id FROM {prefix}_events WHERE stream = ?1 AND version = ?2";
    /// Streams, with the versions of the first and the last event that are left.
    list_streams: "SELECT s.name, s.state, s.removed_to, \
        (SELECT min(version) FROM {prefix}_events WHERE stream = s.id), \
        (SELECT max(version) FROM {prefix}_events WHERE stream = s.id), s.deleted_at \
        FROM {prefix}_streams s WHERE s.name > ?1 ORDER BY s.name LIMIT ?2";
    ids_after: "SELECT version, position, id FROM {prefix}_events \
        WHERE stream = ?1 AND version > ?2 ORDER BY version LIMIT ?3";

    insert_stream: "INSERT INTO {prefix}_streams (name, category) VALUES (?1, ?2)";
    insert_event: "INSERT INTO {prefix}_events \
        (position, stream, version, id, type, recorded_at, kinds, data, metadata) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    revive_stream: "UPDATE {prefix}_streams SET state = 0 WHERE id = ?1";
    remove_events: "DELETE FROM {prefix}_events WHERE stream = ?1 AND version <= ?2";
    set_removed_to: "UPDATE {prefix}_streams SET removed_to = max(removed_to, ?2) WHERE id = ?1";
    close_stream: "UPDATE {prefix}_streams SET state = ?2, deleted_at = ?3 WHERE id = ?1";

    stream_forwards: concat!(event_columns!(),
        "WHERE e.stream = ?1 AND e.version >= ?2 ORDER BY e.version");
    stream_backwards: concat!(event_columns!(),
        "WHERE e.stream = ?1 AND e.version <= ?2 ORDER BY e.version DESC");
    first_position_after: "SELECT min(position) FROM {prefix}_events WHERE position > ?1";
    last_position_before: "SELECT max(position) FROM {prefix}_events WHERE position < ?1";
    all_forwards: concat!(event_columns!(), in_window!(), "ORDER BY e.position");
    all_backwards: concat!(event_columns!(), in_window!(), "ORDER BY e.position DESC");
    of_streams_forwards: concat!(event_columns!(),
        "CROSS JOIN {prefix}_streams s ON s.id = e.stream ",
        in_window!(), of_streams!(), "ORDER BY e.position");
    of_streams_backwards: concat!(event_columns!(),
        "CROSS JOIN {prefix}_streams s ON s.id = e.stream ",
        in_window!(), of_streams!(), "ORDER BY e.position DESC");

    load_snapshot: "SELECT version, kinds, data, metadata FROM {prefix}_snapshots \
        WHERE stream = ?1";
    save_snapshot: "INSERT INTO {prefix}_snapshots (stream, version, kinds, data, metadata) \
        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (stream) DO UPDATE SET version = excluded.version, \
        kinds = excluded.kinds, data = excluded.data, metadata = excluded.metadata \
        WHERE excluded.version >= version";
    delete_snapshot: "DELETE FROM {prefix}_snapshots WHERE stream = ?1";

    load_checkpoint: "SELECT position FROM {prefix}_checkpoints WHERE subscriber = ?1";
    save_checkpoint: "INSERT INTO {prefix}_checkpoints (subscriber, position) VALUES (?1, ?2) \
        ON CONFLICT (subscriber) DO UPDATE SET position = max(position, excluded.position) \
        RETURNING position";
    /// The first checkpoint of a subscriber, and every later one. Each is written again if it is there.
    begin_checkpoint: "INSERT INTO {prefix}_checkpoints (subscriber, position) VALUES (?1, ?2) \
        ON CONFLICT (subscriber) DO UPDATE SET position = position WHERE position = ?2";
    swap_checkpoint: "UPDATE {prefix}_checkpoints SET position = ?2 \
        WHERE subscriber = ?1 AND position IN (?2, ?3)";
    set_checkpoint: "INSERT INTO {prefix}_checkpoints (subscriber, position) VALUES (?1, ?2) \
        ON CONFLICT (subscriber) DO UPDATE SET position = excluded.position";
    delete_checkpoint: "DELETE FROM {prefix}_checkpoints WHERE subscriber = ?1";

    load_lease: "SELECT revision, token, holder, ttl FROM {prefix}_leases WHERE name = ?1";
    /// The first record of a lease, and every later one, which must follow the record before it.
    begin_lease: "INSERT INTO {prefix}_leases (name, revision, token, holder, ttl) \
        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO NOTHING";
    swap_lease: "UPDATE {prefix}_leases SET revision = ?2, token = ?3, holder = ?4, ttl = ?5 \
        WHERE name = ?1 AND revision = ?2 - 1";
}
