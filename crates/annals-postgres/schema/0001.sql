-- Version 1. `{schema}` is replaced by the quoted name of the store's schema, `{name}` by that name as
-- a literal, and `{key}` by a random number.
--
-- The functions pin `search_path`: otherwise whoever may create objects in a schema that a session
-- searches, as everybody may in `public` up to PostgreSQL 14, could have a function of his own called
-- in place of one of PostgreSQL's.
--
-- Each function that is given `lock_key` compares it with `{key}`: if the schema was removed and made
-- again, or another one has its name now, a process that opened the store before is refused. Its
-- locks would have another key, so that readers would not see its appends.

-- The versions that this schema has reached, and when.
CREATE TABLE {schema}.migrations (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row about the store itself.
CREATE TABLE {schema}.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The first half of the key of every advisory lock of this store.
    lock_key integer NOT NULL,
    -- The name of the schema. The functions contain it, so that they would write to another store if
    -- the schema were renamed.
    schema   text NOT NULL,
    -- What `history` said when the store was last written to; NULL if that is not known.
    history  text,
    -- Pairs of positions. If an event was seen between the two, another server has committed it, and
    -- this one lacks it: see `follow_server`.
    losses   bigint[] NOT NULL DEFAULT '{}',
    -- The position of the last event that was deleted while there was none behind it.
    removed  bigint NOT NULL DEFAULT 0
);

INSERT INTO {schema}.store (lock_key, schema) VALUES ({key}, {name});

-- Which server this is, and on which timeline: a standby that becomes the primary begins a new timeline,
-- and so does a restore to a point in time. NULL where a service does not tell.
CREATE FUNCTION {schema}.history() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system())
        || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

UPDATE {schema}.store SET history = {schema}.history();

-- The row of a stream stays for ever, even if the stream is deleted. The version of a stream is the
-- greater of the version of its last event and `removed_to`. An append does not change the row of a
-- live stream: updating a row costs as much as inserting an event.
CREATE TABLE {schema}.streams (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    category   text COLLATE "C",             -- NULL if the name has no `-`
    state      smallint NOT NULL DEFAULT 0,  -- 0 live, 1 deleted, 2 tombstoned
    removed_to bigint NOT NULL DEFAULT 0,    -- events up to this version were removed
    deleted_at bigint NOT NULL DEFAULT 0     -- the version when it was last deleted
);

-- CACHE 1: a session that took several positions at once would keep low positions, and give them to
-- later appends.
CREATE SEQUENCE {schema}.positions AS bigint CACHE 1;

-- Shows, when a store is opened, whether the server gives each session a range of numbers.
CREATE SEQUENCE {schema}.trial AS bigint CACHE 1 CYCLE;

-- Looks whether another server has taken over, and if so, passes over many positions. The commits that
-- the former server made last may be missing here. If their positions were given again, readers that
-- have seen them would skip the new events. So no position is given twice, and the positions that were
-- passed over show which readers have seen what is lost. A process asks on each new connection, before
-- it appends anything there.
--
-- The function belongs to whoever made the schema, and runs with the privileges of that role: a role that
-- may only append cannot set a sequence. If it is called in a transaction of its own, `is_alone`, it does
-- not wait for a synchronous standby: readers must go on without one, and it can be repeated.
CREATE FUNCTION {schema}.follow_server(is_alone boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- More than any server can lose.
    passed_over constant bigint := 1000000000;
    current_history constant text := {schema}.history();
    last bigint;
    next bigint;
BEGIN
    IF current_history IS NULL OR current_history = (
        SELECT store.history FROM {schema}.store WHERE only_row
    ) THEN
        RETURN;
    END IF;
    IF is_alone THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    -- Whoever else comes to this line waits for the row, and then finds it changed.
    UPDATE {schema}.store SET history = current_history
    WHERE store.history IS DISTINCT FROM current_history;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT greatest(store.removed, (SELECT max(position) FROM {schema}.events)) INTO last
    FROM {schema}.store WHERE only_row;
    -- The sequence may be ahead of what the former server gave: it is logged 32 numbers ahead.
    next := passed_over
        + greatest(last, pg_sequence_last_value('{schema}.positions'::regclass));
    UPDATE {schema}.store SET losses = losses || ARRAY[last, next];
    -- The last step, since a rollback does not take it back.
    PERFORM setval('{schema}.positions'::regclass, next);
END
$$;

CREATE TABLE {schema}.events (
    position    bigint PRIMARY KEY,
    stream      bigint NOT NULL,             -- streams.id; a foreign key would lock that row
    version     bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    id          uuid NOT NULL,
    flags       smallint NOT NULL,           -- 1: data is JSON, 2: metadata is JSON, 4: see below
    category    text COLLATE "C",            -- that of the stream
    type        text COLLATE "C" NOT NULL,
    data        bytea NOT NULL,              -- bytes even if JSON: json types change or refuse some
    metadata    bytea NOT NULL,
    UNIQUE (stream, version)
);

CREATE INDEX events_by_category ON {schema}.events (category, position) WHERE category IS NOT NULL;
CREATE INDEX events_by_type ON {schema}.events (type, position);
-- Finds a retry under `Any` or `StreamExists`: the first event of each such append has flag 4.
-- Other appends have no entry in this index.
CREATE INDEX events_by_first_id ON {schema}.events (stream, id) WHERE flags & 4 <> 0;

-- Has the name of the stream: a snapshot may be saved for a stream that has no row.
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

-- Writes appends. Each is judged by itself, or all together if `all_or_none`.
--
-- The function works in this order:
--
-- 1. It takes the lock on the table that the insert takes anyway. While somebody holds up all writes,
--    as `CREATE INDEX` does, the append waits here, where it does not count as under way yet.
-- 2. It takes an exclusive lock on each stream. So no other append to the stream is under way, and
--    readers can see that this one is. Both locks last until the commit.
-- 3. It judges the expectations by a snapshot that is younger than the locks.
-- 4. It takes positions and inserts the events.
--
-- So if a reader sees a position, every append with a lower position that is not visible yet holds
-- both of its locks: see `horizon`.
--
-- The appends come in rounds, and no stream is twice in a round: the first round ends with the
-- append number `rounds[1]`, the second with `rounds[2]`, and so on. An expectation is a version,
-- or -1 for any, or -2 for an existing stream. If the first id of such an append stands in the
-- stream and the append is no retry of that one, `-10 - 2 * version` means any and `-11 - 2 * version`
-- an existing stream: then only a later version shows that it was written before.
--
-- For each append the function returns whether it was written, and how its stream was found: the
-- state (NULL if there is no stream), the version, the version at deletion, and the version at
-- which the first id of the append stands, if that may make the append a retry. If its events stand at
-- just the versions that they would have got, `replays` has the position of the last. This is looked up
-- under the lock, so that no removal comes in between. `positions` are those of the written events, in
-- the order of the appends.
CREATE FUNCTION {schema}.append(
    lock_key integer, all_or_none boolean, rounds integer[],
    names text[], categories text[], expectations bigint[], first_ids uuid[],
    owners integer[], offsets bigint[], event_ids uuid[], event_types text[],
    event_flags smallint[], event_data bytea[], event_metadata bytea[],
    OUT written boolean[], OUT states smallint[], OUT versions bigint[], OUT deletions bigint[],
    OUT seen_at bigint[], OUT replays bigint[], OUT positions bigint[]
) LANGUAGE plpgsql
-- Planning anew for each call costs more than the call itself. A plan that was made while the
-- tables were small must not go on scanning them when they are large.
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    begins   integer := 1;
    ends     integer;
    stream_ids bigint[];
    found_written   boolean[];
    found_states    smallint[];
    found_versions  bigint[];
    found_deletions bigint[];
    found_seen_at   bigint[];
    found_bases     bigint[];
    found_removals  bigint[];
    found_replays   bigint[];
    found_positions bigint[];
    created record;
    clock timestamptz;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {name} USING ERRCODE = 'AN001';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an append needs the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE {schema}.events IN ROW EXCLUSIVE MODE;
    IF cardinality(names) = 1 THEN
        IF NOT pg_try_advisory_xact_lock(lock_key, hashtext(names[1])) THEN
            PERFORM pg_advisory_xact_lock(lock_key, hashtext(names[1]));
        END IF;
    ELSE
        -- Locks are taken in the order of their keys, so that two calls never wait for each other.
        PERFORM pg_advisory_xact_lock(lock_key, hash)
        FROM (SELECT DISTINCT hashtext(name) AS hash FROM unnest(names) AS name ORDER BY 1) AS hashes;
    END IF;
    clock := clock_timestamp();
    FOREACH ends IN ARRAY rounds LOOP
        SELECT array_agg(head.id), array_agg(head.state), array_agg(head.version),
            array_agg(head.deleted_at), array_agg(head.seen), array_agg(head.removed_to),
            array_agg(CASE WHEN head.state <> 2 THEN
                coalesce(head.seen - 1, CASE WHEN head.expected = 0 THEN head.deleted_at
                    WHEN head.expected BETWEEN 1 AND head.version THEN head.expected END) END),
            array_agg(CASE
                WHEN head.state = 2 OR head.seen IS NOT NULL THEN false
                WHEN head.expected = -1 OR head.expected <= -10 AND head.expected % 2 = 0 THEN true
                WHEN head.expected < 0 THEN head.state IS NOT DISTINCT FROM 0
                WHEN head.expected = 0 THEN head.state IS DISTINCT FROM 0
                ELSE head.version = head.expected
            END)
        INTO stream_ids, found_states, found_versions, found_deletions, found_seen_at,
            found_removals, found_bases, found_written
        FROM (
            SELECT stream.id, stream.state, coalesce(stream.deleted_at, 0) AS deleted_at,
                asked.expected, stream.removed_to,
                greatest(stream.removed_to, 0, (
                    SELECT event.version FROM {schema}.events AS event
                    WHERE event.stream = stream.id ORDER BY event.version DESC LIMIT 1
                )) AS version,
                CASE WHEN asked.expected < 0 THEN (
                    SELECT max(event.version) FROM {schema}.events AS event
                    WHERE event.stream = stream.id AND event.id = asked.first_id
                        AND event.flags & 4 <> 0 AND event.version > stream.removed_to
                        AND event.version > (-10 - asked.expected) / 2
                ) END AS seen
            FROM unnest(names[begins:ends], expectations[begins:ends], first_ids[begins:ends])
                WITH ORDINALITY AS asked (name, expected, first_id, number)
            LEFT JOIN LATERAL (
                SELECT * FROM {schema}.streams WHERE streams.name = asked.name OFFSET 0
            ) AS stream ON true
            ORDER BY asked.number
        ) AS head;
        found_replays := array_fill(NULL::bigint, ARRAY[cardinality(found_written)]);
        IF false = ANY (found_written) THEN
            SELECT array_agg(replay.position ORDER BY asked.number) INTO found_replays
            FROM unnest(stream_ids, found_bases, found_removals, found_written) WITH ORDINALITY
                AS asked (stream, base, removed_to, wanted, number)
            CROSS JOIN LATERAL (
                SELECT max(event.position) AS position
                FROM unnest(owners, offsets, event_ids) AS given (owner, number, id)
                LEFT JOIN {schema}.events AS event ON event.stream = asked.stream
                    AND event.version = asked.base + given.number
                    AND event.version > asked.removed_to AND event.id = given.id
                WHERE given.owner = begins + asked.number - 1 AND NOT asked.wanted
                    AND asked.base IS NOT NULL
                HAVING count(*) = count(event.position)
                UNION ALL SELECT NULL LIMIT 1
            ) AS replay;
        END IF;
        IF all_or_none AND false = ANY (found_written) THEN
            found_written := array_fill(false, ARRAY[cardinality(found_written)]);
        END IF;
        IF true = ANY (found_written) THEN
            IF array_position(stream_ids, NULL) IS NOT NULL THEN
                FOR created IN
                    INSERT INTO {schema}.streams (name, category)
                    SELECT asked.name, asked.category
                    FROM unnest(names[begins:ends], categories[begins:ends], stream_ids, found_written)
                        AS asked (name, category, id, wanted)
                    WHERE asked.id IS NULL AND asked.wanted
                    RETURNING streams.id, streams.name
                LOOP
                    stream_ids[array_position(names[begins:ends], created.name)] := created.id;
                END LOOP;
            END IF;
            IF 1 = ANY (found_states) THEN
                UPDATE {schema}.streams SET state = 0
                FROM unnest(stream_ids, found_written) AS found (id, wanted)
                WHERE streams.id = found.id AND found.wanted AND streams.state = 1;
            END IF;
            WITH inserted AS (
                INSERT INTO {schema}.events (position, stream, version, recorded_at, id, flags,
                    category, type, data, metadata)
                SELECT nextval('{schema}.positions'), stream_ids[event.owner - begins + 1],
                    found_versions[event.owner - begins + 1] + event.number, clock, event.id,
                    event.flags, categories[event.owner], event.type, event.data, event.metadata
                FROM unnest(owners, offsets, event_ids, event_types, event_flags, event_data,
                    event_metadata) AS event (owner, number, id, type, flags, data, metadata)
                WHERE event.owner BETWEEN begins AND ends
                    AND found_written[event.owner - begins + 1]
                RETURNING events.position
            )
            SELECT array_agg(inserted.position) INTO found_positions FROM inserted;
            positions := positions || found_positions;
        END IF;
        written := written || found_written;
        states := states || found_states;
        versions := versions || found_versions;
        deletions := deletions || found_deletions;
        seen_at := seen_at || found_seen_at;
        replays := replays || found_replays;
        begins := ends + 1;
    END LOOP;
END
$$;

-- Does the same for one append of one event. Most appends are like that, and without arrays they
-- take two thirds of the time.
CREATE FUNCTION {schema}.append_one(
    lock_key integer, stream_name text, stream_category text, expected bigint, event_id uuid,
    event_type text, event_flags smallint, event_data bytea, event_metadata bytea,
    OUT written boolean, OUT stream_state smallint, OUT stream_version bigint,
    OUT deletion bigint, OUT seen bigint, OUT replay bigint, OUT event_position bigint
) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    stream_id bigint;
    removed bigint;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {name} USING ERRCODE = 'AN001';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an append needs the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE {schema}.events IN ROW EXCLUSIVE MODE;
    IF NOT pg_try_advisory_xact_lock(lock_key, hashtext(stream_name)) THEN
        PERFORM pg_advisory_xact_lock(lock_key, hashtext(stream_name));
    END IF;
    SELECT stream.id, stream.state, stream.removed_to, stream.deleted_at, (
        SELECT event.version FROM {schema}.events AS event
        WHERE event.stream = stream.id ORDER BY event.version DESC LIMIT 1
    ) INTO stream_id, stream_state, removed, deletion, stream_version
    FROM {schema}.streams AS stream WHERE stream.name = stream_name;
    stream_version := greatest(stream_version, removed, 0);
    IF expected < 0 AND stream_id IS NOT NULL THEN
        SELECT max(event.version) INTO seen FROM {schema}.events AS event
        WHERE event.stream = stream_id AND event.id = event_id AND event.flags & 4 <> 0
            AND event.version > removed AND event.version > (-10 - expected) / 2;
    END IF;
    written := CASE
        WHEN stream_state = 2 OR seen IS NOT NULL THEN false
        WHEN expected = -1 OR expected <= -10 AND expected % 2 = 0 THEN true
        WHEN expected < 0 THEN stream_state IS NOT DISTINCT FROM 0
        WHEN expected = 0 THEN stream_state IS DISTINCT FROM 0
        ELSE stream_version = expected
    END;
    IF NOT written THEN
        IF stream_state <> 2 THEN
            SELECT event.position INTO replay FROM {schema}.events AS event
            WHERE event.stream = stream_id AND event.id = event_id AND event.version > removed
                AND event.version = coalesce(seen, CASE WHEN expected = 0 THEN deletion + 1
                    WHEN expected BETWEEN 1 AND stream_version - 1 THEN expected + 1 END);
        END IF;
        RETURN;
    END IF;
    IF stream_id IS NULL THEN
        INSERT INTO {schema}.streams (name, category) VALUES (stream_name, stream_category)
        RETURNING id INTO stream_id;
    ELSIF stream_state = 1 THEN
        UPDATE {schema}.streams SET state = 0 WHERE id = stream_id;
    END IF;
    event_position := nextval('{schema}.positions');
    INSERT INTO {schema}.events (position, stream, version, recorded_at, id, flags, category, type,
        data, metadata)
    VALUES (event_position, stream_id, stream_version + 1, clock_timestamp(), event_id, event_flags,
        stream_category, event_type, event_data, event_metadata);
END
$$;

-- Writes events that another store recorded, as they are: all of them, or none if some stream is
-- not as it must be. The order is that of `append`: locks, judgement, positions.
--
-- Each stream is named once. `firsts` has the version of the first event of each stream; the
-- versions of its events have no gaps. The events are written if the stream is at the version
-- before the first one, or if no event of the stream can be read and its version is lower: then the
-- missing versions count as removed. For each stream the function returns how it was found: the
-- state (NULL if there is no stream), the version, and the version up to which events were removed.
CREATE FUNCTION {schema}.import(
    lock_key integer, names text[], categories text[], firsts bigint[],
    owners integer[], event_versions bigint[], event_times timestamptz[], event_ids uuid[],
    event_types text[], event_flags smallint[], event_data bytea[], event_metadata bytea[],
    OUT written boolean, OUT states smallint[], OUT versions bigint[], OUT removals bigint[]
) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    stream_ids bigint[];
    amends boolean;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {name} USING ERRCODE = 'AN001';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an import needs the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE {schema}.events IN ROW EXCLUSIVE MODE;
    PERFORM pg_advisory_xact_lock(lock_key, hash)
    FROM (SELECT DISTINCT hashtext(name) AS hash FROM unnest(names) AS name ORDER BY 1) AS hashes;
    SELECT array_agg(head.id), array_agg(head.state), array_agg(head.version),
        array_agg(head.removed_to),
        bool_and(head.state IS DISTINCT FROM 2 AND (head.first - 1 = head.version
            OR head.first > head.version AND head.version = head.removed_to)),
        bool_or(head.id IS NOT NULL AND (head.state <> 0 OR head.first - 1 <> head.version))
    INTO stream_ids, states, versions, removals, written, amends
    FROM (
        SELECT stream.id, stream.state, asked.first, coalesce(stream.removed_to, 0) AS removed_to,
            greatest(stream.removed_to, 0, (
                SELECT event.version FROM {schema}.events AS event
                WHERE event.stream = stream.id ORDER BY event.version DESC LIMIT 1
            )) AS version
        FROM unnest(names, firsts) WITH ORDINALITY AS asked (name, first, number)
        LEFT JOIN LATERAL (
            SELECT * FROM {schema}.streams WHERE streams.name = asked.name OFFSET 0
        ) AS stream ON true
        ORDER BY asked.number
    ) AS head;
    IF NOT written THEN
        RETURN;
    END IF;
    IF array_position(stream_ids, NULL) IS NOT NULL THEN
        INSERT INTO {schema}.streams (name, category, removed_to)
        SELECT asked.name, asked.category, asked.first - 1
        FROM unnest(names, categories, firsts, stream_ids) AS asked (name, category, first, id)
        WHERE asked.id IS NULL;
        -- For many new streams this is faster than finding each one in the answer of the insert.
        SELECT array_agg(found.id) INTO stream_ids FROM (
            SELECT (SELECT streams.id FROM {schema}.streams WHERE streams.name = asked.name) AS id
            FROM unnest(names) WITH ORDINALITY AS asked (name, number) ORDER BY asked.number
        ) AS found;
    END IF;
    IF amends THEN
        UPDATE {schema}.streams SET state = 0,
            removed_to = CASE WHEN found.first - 1 = found.version THEN streams.removed_to
                ELSE found.first - 1 END
        FROM unnest(stream_ids, states, firsts, versions) AS found (id, state, first, version)
        WHERE streams.id = found.id
            AND (found.state = 1 OR found.state = 0 AND found.first - 1 <> found.version);
    END IF;
    INSERT INTO {schema}.events (position, stream, version, recorded_at, id, flags, category, type,
        data, metadata)
    SELECT nextval('{schema}.positions'), stream_ids[event.owner], event.version,
        event.recorded_at, event.id, event.flags, categories[event.owner], event.type, event.data,
        event.metadata
    FROM unnest(owners, event_versions, event_times, event_ids, event_types, event_flags,
        event_data, event_metadata) WITH ORDINALITY
        AS event (owner, version, recorded_at, id, type, flags, data, metadata, number)
    ORDER BY event.number;
END
$$;

-- Says how far readers may read. Up to the position `settled`, every append has become visible or
-- has failed, so that a reader that does not go beyond it skips no event. `visible` is the greatest
-- position that can be seen. If it is beyond `settled`, there is a gap between the two, and
-- `in_flight` has the transactions that may still fill it.
--
-- `known` is the settled position of an earlier call. If positions continue from there without a
-- gap, they are settled, and nothing else has to be looked at. Otherwise: an append with a position
-- below `visible` took its locks before that position, and so before `visible` was read. If there is
-- no lock now, no such append is under way. Locks are released after the commit has become visible.
--
-- Everybody who may connect can take an advisory lock with the store's key. So only a transaction
-- counts that holds the lock on the table too, for which a role needs a privilege to write to it.
CREATE FUNCTION {schema}.horizon(
    lock_key integer, known bigint, OUT settled bigint, OUT visible bigint, OUT in_flight text[]
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The most positions that are searched for a gap.
    most constant bigint := 1000;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {name} USING ERRCODE = 'AN001';
    END IF;
    SELECT max(position) INTO visible FROM {schema}.events;
    visible := greatest(visible, known);
    settled := known;
    IF visible - known <= most THEN
        SELECT known + count(*) INTO settled FROM (
            SELECT position, row_number() OVER (ORDER BY position) AS number
            FROM {schema}.events WHERE position > known AND position <= visible
        ) AS event WHERE event.position = known + event.number;
    END IF;
    IF settled < visible THEN
        WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE granted)
        SELECT array_agg(DISTINCT virtualtransaction) INTO in_flight FROM locks
        WHERE locktype = 'advisory' AND objsubid = 2
            AND classid = (lock_key::bigint & 4294967295)::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND virtualtransaction IN (
                SELECT virtualtransaction FROM locks WHERE locktype = 'relation'
                    AND mode = 'RowExclusiveLock' AND relation = '{schema}.events'::regclass
            );
        IF in_flight IS NULL THEN
            settled := visible;
        END IF;
    END IF;
END
$$;

-- Removes the events of a stream up to a version, and gives the stream a new state unless
-- `new_state` is NULL. If the stream is no longer as the caller knows it, the function changes
-- nothing and returns false. The events are hidden at once; their rows can be deleted at any later
-- time.
CREATE FUNCTION {schema}.remove(
    lock_key integer, stream_name text, stream_category text, known_state smallint,
    known_version bigint, new_state smallint, up_to bigint
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stream {schema}.streams;
    version bigint;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {name} USING ERRCODE = 'AN001';
    END IF;
    PERFORM pg_advisory_xact_lock(lock_key, hashtext(stream_name));
    SELECT * INTO stream FROM {schema}.streams WHERE name = stream_name;
    SELECT max(event.version) INTO version FROM {schema}.events AS event
    WHERE event.stream = stream.id;
    version := greatest(version, stream.removed_to, 0);
    IF stream.state IS DISTINCT FROM known_state OR version <> known_version THEN
        RETURN false;
    END IF;
    IF stream.id IS NULL THEN
        INSERT INTO {schema}.streams (name, category, state)
        VALUES (stream_name, stream_category, new_state);
    ELSE
        UPDATE {schema}.streams SET state = coalesce(new_state, state),
            removed_to = greatest(removed_to, least(up_to, version)),
            deleted_at = CASE WHEN new_state IS NULL THEN deleted_at ELSE version END
        WHERE id = stream.id;
    END IF;
    IF new_state IS NOT NULL THEN
        DELETE FROM {schema}.snapshots AS snapshot WHERE snapshot.stream = stream_name;
    END IF;
    RETURN true;
END
$$;

-- For the view: a payload as `jsonb`, or NULL if `jsonb` refuses it, as it does `\u0000` and some
-- numbers.
CREATE FUNCTION {schema}.to_jsonb(payload bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN convert_from(payload, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- For people. Payloads that are JSON appear as `jsonb` and as text, all payloads as bytes.
CREATE VIEW {schema}.readable_events AS
SELECT event.position, stream.name AS stream, event.version, event.category, event.type, event.id,
    event.recorded_at,
    CASE WHEN event.flags & 1 <> 0 THEN {schema}.to_jsonb(event.data) END AS data,
    CASE WHEN event.flags & 2 <> 0 THEN {schema}.to_jsonb(event.metadata) END AS metadata,
    CASE WHEN event.flags & 1 <> 0 THEN convert_from(event.data, 'UTF8') END AS data_text,
    event.data AS data_bytes, event.metadata AS metadata_bytes
FROM {schema}.events AS event JOIN {schema}.streams AS stream ON stream.id = event.stream
WHERE event.version > stream.removed_to;
