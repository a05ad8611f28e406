-- Version 1 of the schema. `{prefix}` is replaced by the store's prefix.

-- Facts about the store: the version of this schema, and the greatest position that a removed event
-- had, so that no position is ever given twice.
CREATE TABLE {prefix}_meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO {prefix}_meta (key, value) VALUES ('schema_version', 0), ('position_floor', 0);

-- A row stays for ever, even if its stream is deleted, so that row ids are never reused. The version
-- of a stream is the version of its last event or `removed_to`, whichever is greater.
CREATE TABLE {prefix}_streams (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    category   TEXT,
    state      INTEGER NOT NULL DEFAULT 0, -- 0 live, 1 deleted, 2 tombstoned
    removed_to INTEGER NOT NULL DEFAULT 0, -- the greatest version that was removed
    deleted_at INTEGER NOT NULL DEFAULT 0  -- the version of the stream when it was last deleted
) STRICT;

-- There is only one index, because every further index makes every append more expensive. Filters
-- are evaluated while the table is scanned, which is in the order of positions.
CREATE TABLE {prefix}_events (
    position    INTEGER PRIMARY KEY,
    stream      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    id          BLOB NOT NULL,
    type        TEXT NOT NULL,
    recorded_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    kinds       INTEGER NOT NULL, -- 1: the data is JSON, 2: the metadata is JSON
    data        BLOB NOT NULL,
    metadata    BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX {prefix}_events_by_stream ON {prefix}_events (stream, version);

-- The key is the name of the stream, because a snapshot can be kept of a stream that was never
-- written to.
CREATE TABLE {prefix}_snapshots (
    stream   TEXT PRIMARY KEY NOT NULL,
    version  INTEGER NOT NULL,
    kinds    INTEGER NOT NULL,
    data     BLOB NOT NULL,
    metadata BLOB NOT NULL
) STRICT;

CREATE TABLE {prefix}_checkpoints (
    subscriber TEXT PRIMARY KEY NOT NULL,
    position   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A row stays for ever, so that no revision, and therefore no token, is ever given twice.
CREATE TABLE {prefix}_leases (
    name     TEXT PRIMARY KEY NOT NULL,
    revision INTEGER NOT NULL,
    token    INTEGER NOT NULL,
    holder   BLOB NOT NULL,
    ttl      INTEGER NOT NULL -- milliseconds
) STRICT, WITHOUT ROWID;
