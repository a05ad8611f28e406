-- Version 1 of annals' own schema beside Marten's. `{schema}` is replaced by its quoted name, `{name}` by
-- that name as a literal, `{key}` by a random number, `{id}` by the type of Marten's stream ids.
--
-- No foreign key leads from here to Marten's tables: a .NET program deletes rows there.

-- The versions that this schema has reached, and when.
CREATE TABLE {schema}.migrations (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row about the store itself.
CREATE TABLE {schema}.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    lock_key integer NOT NULL,
    -- The name of this schema, which its functions contain.
    schema   text NOT NULL,
    -- The schema and the tenant whose events this store has. NULL: nobody has opened it yet.
    marten   text,
    tenant   text,
    -- The digest of the functions and views, which are made anew when Marten's tables have changed.
    shape    text
);

INSERT INTO {schema}.store (lock_key, schema) VALUES ({key}, {name});

-- Shows, when a store is opened, what the server shows of sequences.
CREATE SEQUENCE {schema}.trial AS bigint CACHE 1 CYCLE;

-- The exact bytes of the events that annals wrote: `jsonb` changes JSON, and refuses some.
CREATE TABLE {schema}.payloads (
    seq_id   bigint PRIMARY KEY,
    flags    smallint NOT NULL,  -- 1: data is JSON, 2: metadata is JSON
    -- The id of the event, if it is the first of an append under `Any` or `StreamExists`: a retry of
    -- that append is found by it.
    first_id uuid,
    data     bytea NOT NULL,
    metadata bytea NOT NULL,
    -- The MD5 of `mt_events.data::text`. If it is another one now, a .NET program has masked or
    -- compacted the event, and these bytes are no longer those of the event.
    digest   uuid NOT NULL
);

CREATE INDEX payloads_by_first_id ON {schema}.payloads (first_id) WHERE first_id IS NOT NULL;

-- The names of streams in a database whose ids are Guids, unless the id itself makes the name.
CREATE TABLE {schema}.names (
    id   {id} PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- The removals of streams. A removed event is archived, as Marten calls it.
CREATE TABLE {schema}.removed (
    id         {id} PRIMARY KEY,
    removed_to bigint NOT NULL DEFAULT 0,  -- events up to this version were removed
    deleted_at bigint NOT NULL DEFAULT 0   -- the version when it was last deleted
);

CREATE TABLE {schema}.snapshots (
    stream   text COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    flags    smallint NOT NULL,
    data     bytea NOT NULL,
    metadata bytea NOT NULL
);

CREATE TABLE {schema}.checkpoints (
    subscriber text COLLATE "C" PRIMARY KEY,
    position   bigint NOT NULL
);

-- The row of a lease stays for ever, so that no revision and no token is given twice.
CREATE TABLE {schema}.leases (
    name     text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    token    bigint NOT NULL,
    holder   uuid NOT NULL,
    ttl      bigint NOT NULL                 -- milliseconds
);
