-- Views and functions of annals' own schema, which depend on what Marten's tables look like. They are
-- made anew when that has changed. `src/words.rs` says what stands in place of each word in braces.

DROP VIEW IF EXISTS {schema}.events, {schema}.streams CASCADE;
DROP FUNCTION IF EXISTS {schema}.key_of, {schema}.type_of, {schema}.append, {schema}.horizon,
    {schema}.remove CASCADE;

-- The id of a stream in Marten's tables.
CREATE FUNCTION {schema}.key_of(name text) RETURNS {id} LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN {key_of};

-- The type of a stream in Marten's tables, if annals begins the stream.
CREATE FUNCTION {schema}.type_of(name text) RETURNS varchar LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN {type_of};

-- The events that can be read: see `events.sql`.
CREATE VIEW {schema}.events AS
{events_view};

-- The streams that were ever written to: see `streams.sql`.
CREATE VIEW {schema}.streams AS
{streams_view};

-- Writes appends, all or none.
--
-- 1. It locks the row of each stream, in the order of their ids. No other append of annals to these
--    streams is under way then, and none of Marten that has inserted an event: the foreign key of an
--    event holds a lock on the row of its stream, too.
-- 2. It judges all expectations, before it takes a number.
-- 3. It takes numbers and inserts the events. An append of Marten takes its locks in another order, so
--    that the two may wait for each other: nothing but the first row is waited for longer than 30
--    milliseconds.
--
-- An expectation is a version, -1 for any, -2 for an existing stream, or `-10 - version` for an import
-- whose first event has the version after this one. `outcome` is 0: not written; 1: written; 2: another
-- transaction got in the way, and the same call may succeed; 3: the store keeps event ids unique, and one
-- is there already. Numbers that a failed try took are filled with tombstones, as Marten does, since its
-- projections would wait for them.
--
-- For each append the function says how its stream was found: the state (NULL: no stream, 3: the id
-- belongs to a stream of another type), the version, the version at its deletion, whether it has readable
-- events; and, if the append was written before, the version before it and the number of its last event.
CREATE FUNCTION {schema}.append(
    lock_key integer, names text[], expectations bigint[],
    owners integer[], offsets bigint[], event_ids uuid[], event_types text[], dotnet_types text[],
    event_flags smallint[], bodies jsonb[], event_data bytea[], event_metadata bytea[],
    event_headers jsonb[], correlations text[], causations text[], times timestamptz[],
    OUT outcome smallint, OUT states smallint[], OUT versions bigint[], OUT deletions bigint[],
    OUT are_empty boolean[], OUT bases bigint[], OUT replays bigint[], OUT positions bigint[]
) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    asked record;
    head record;
    keys {id}[];
    rows_found bigint[];
    row_count bigint;
    expected bigint;
    state smallint;
    holds boolean;
    all_hold boolean := true;
    base bigint;
    replay bigint;
    sought_id uuid;
    hit text;
    clock timestamptz;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {schema_name} USING ERRCODE = 'AN001';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an append needs the isolation level READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    states := array_fill(NULL::smallint, ARRAY[cardinality(names)]);
    versions := array_fill(NULL::bigint, ARRAY[cardinality(names)]);
    deletions := versions;
    bases := versions;
    replays := versions;
    rows_found := versions;
    are_empty := array_fill(true, ARRAY[cardinality(names)]);
    outcome := 0;
    BEGIN
        -- One event for a stream that nothing happened to but appends: the same steps, with fewer
        -- statements. Whatever is not as simple as that is left to the steps below.
        IF {is_plain} AND cardinality(names) = 1 AND cardinality(event_ids) = 1
            AND expectations[1] >= -1 AND cardinality(times) = 0
        THEN
            keys[1] := {schema}.key_of(names[1]);
            SELECT s.version, s.is_archived INTO head FROM {marten}.mt_streams AS s
            WHERE s.id = keys[1]{s_tenant} FOR UPDATE;
            row_count := CASE WHEN FOUND THEN 1 ELSE 0 END;
            PERFORM set_config('lock_timeout', '30ms', true);
            base := NULL;
            IF head.is_archived IS NOT TRUE THEN
                -- Another statement, so that it sees what was committed before the lock was given.
                SELECT greatest(head.version, 0, (SELECT e.version FROM {marten}.mt_events AS e
                    WHERE e.stream_id = keys[1]{e_tenant} ORDER BY e.version DESC LIMIT 1)) INTO base
                WHERE NOT EXISTS (SELECT FROM {schema}.removed AS r WHERE r.id = keys[1])
                    AND (expectations[1] <> -1 OR NOT EXISTS (
                        SELECT FROM {schema}.payloads AS p WHERE p.first_id = event_ids[1]));
            END IF;
            IF base IS NOT NULL AND expectations[1] IN (-1, base) THEN
                clock := clock_timestamp();
                IF row_count = 0 THEN
                    INSERT INTO {marten}.mt_streams
                        (id, type, version, timestamp, created, tenant_id, is_archived)
                    VALUES (keys[1], {schema}.type_of(names[1]), base + 1, clock, clock, {tenant}, false)
                    ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        RAISE EXCEPTION 'the stream was made meanwhile' USING ERRCODE = 'AN010';
                    END IF;
                ELSE
                    UPDATE {marten}.mt_streams AS s SET version = base + 1, timestamp = clock
                    WHERE s.id = keys[1]{s_tenant};
                END IF;
                positions := ARRAY[nextval('{marten}.mt_events_sequence'::regclass)];
                INSERT INTO {marten}.mt_events (seq_id, id, stream_id, version, data, type, timestamp,
                    tenant_id, mt_dotnet_type, is_archived{meta_columns})
                VALUES (positions[1], event_ids[1], keys[1], base + 1, bodies[1], event_types[1], clock,
                    {tenant}, dotnet_types[1], false{meta_of_one});
                IF event_data[1] IS NOT NULL OR expectations[1] = -1 THEN
                    INSERT INTO {schema}.payloads (seq_id, flags, first_id, data, metadata, digest)
                    VALUES (positions[1], event_flags[1],
                        CASE WHEN expectations[1] = -1 THEN event_ids[1] END, event_data[1],
                        event_metadata[1], md5(bodies[1]::text)::uuid);
                END IF;
                versions[1] := base;
                outcome := 1;
                RETURN;
            END IF;
        END IF;
        FOR asked IN
            SELECT a.number::integer AS number, a.name, {schema}.key_of(a.name) AS key
            FROM unnest(names) WITH ORDINALITY AS a (name, number) ORDER BY 3
        LOOP
            SELECT count(*) INTO row_count FROM (
                SELECT FROM {marten}.mt_streams AS s WHERE s.id = asked.key{s_tenant} FOR UPDATE
            ) AS locked;
            PERFORM set_config('lock_timeout', '30ms', true);
            keys[asked.number] := asked.key;
            rows_found[asked.number] := row_count;
            -- Another statement, so that it sees what was committed before the lock was given.
            SELECT s.* INTO head FROM {schema}.streams AS s WHERE s.key = asked.key;
            state := head.state;
            IF state IS NOT NULL AND ({is_other_type}) THEN
                state := 3;
            END IF;
            states[asked.number] := state;
            versions[asked.number] := coalesce(head.version, 0);
            deletions[asked.number] := coalesce(head.deleted_at, 0);
            are_empty[asked.number] := head.first_version IS NULL;
            expected := expectations[asked.number];
            holds := CASE
                WHEN state >= 2 THEN false
                WHEN expected <= -10 THEN versions[asked.number] = -10 - expected
                    OR head.first_version IS NULL AND versions[asked.number] < -10 - expected
                WHEN expected = -1 THEN true
                WHEN expected = -2 THEN state IS NOT DISTINCT FROM 0
                WHEN expected = 0 THEN state IS DISTINCT FROM 0
                ELSE versions[asked.number] = expected
            END;
            base := NULL;
            IF expected IN (-1, -2) THEN
                sought_id := event_ids[array_position(owners, asked.number)];
                -- By their numbers: without statistics, the planner would rather go through the stream.
                SELECT max(f.version) - 1 INTO base
                FROM (SELECT p.seq_id FROM {schema}.payloads AS p
                    WHERE p.first_id = sought_id OFFSET 0) AS p
                CROSS JOIN LATERAL (SELECT e.* FROM {marten}.mt_events AS e
                    WHERE e.seq_id = p.seq_id OFFSET 0) AS f
                WHERE f.stream_id = asked.key{f_tenant} AND f.is_archived = false AND f.id = sought_id;
            ELSIF NOT holds AND expected >= 0 AND state < 2 THEN
                base := CASE WHEN expected = 0 THEN deletions[asked.number] ELSE expected END;
            END IF;
            IF base < versions[asked.number] THEN
                SELECT max(e.seq_id) INTO replay
                FROM unnest(owners, offsets, event_ids) AS g (owner, place, id)
                LEFT JOIN {marten}.mt_events AS e ON e.stream_id = asked.key
                    AND e.version = base + g.place AND e.id = g.id{e_tenant} AND e.is_archived = false
                WHERE g.owner = asked.number HAVING count(*) = count(e.seq_id);
                IF replay IS NOT NULL THEN
                    bases[asked.number] := base;
                    replays[asked.number] := replay;
                END IF;
            END IF;
            all_hold := all_hold AND holds AND replays[asked.number] IS NULL;
        END LOOP;
        IF NOT all_hold THEN
            -- A stream that is not there cannot be locked. If one has been made since it was judged, it
            -- and the streams after it were not judged at the same moment.
            IF cardinality(names) > 1 AND EXISTS (
                SELECT FROM unnest(keys, rows_found) AS k (key, count)
                JOIN {marten}.mt_streams AS s ON s.id = k.key{s_tenant} WHERE k.count = 0
            ) THEN
                outcome := 2;
            END IF;
            RETURN;
        END IF;
        clock := clock_timestamp();
        FOR asked IN
            SELECT a.number::integer AS number, a.name, count(g.owner) AS count
            FROM unnest(names) WITH ORDINALITY AS a (name, number)
            JOIN unnest(owners) AS g (owner) ON g.owner = a.number
            GROUP BY 1, 2 ORDER BY keys[a.number::integer]
        LOOP
            expected := expectations[asked.number];
            IF expected <= -10 AND versions[asked.number] < -10 - expected THEN
                versions[asked.number] := -10 - expected;
                INSERT INTO {schema}.removed AS r (id, removed_to)
                VALUES (keys[asked.number], -10 - expected)
                ON CONFLICT (id) DO UPDATE SET removed_to = excluded.removed_to;
            END IF;
            IF rows_found[asked.number] = 0 THEN
                INSERT INTO {marten}.mt_streams
                    (id, type, version, timestamp, created, tenant_id, is_archived)
                VALUES (keys[asked.number], {schema}.type_of(asked.name),
                    versions[asked.number] + asked.count, clock, clock, {tenant}, false)
                ON CONFLICT DO NOTHING;
                IF NOT FOUND THEN
                    -- Somebody else has just made it.
                    RAISE EXCEPTION 'the stream was made meanwhile' USING ERRCODE = 'AN010';
                END IF;
                {insert_identity}
                {insert_name}
            ELSE
                UPDATE {marten}.mt_streams AS s
                SET version = versions[asked.number] + asked.count, timestamp = clock
                WHERE s.id = keys[asked.number]{s_tenant};
            END IF;
        END LOOP;
        SELECT array_agg(nextval('{marten}.mt_events_sequence'::regclass)) INTO positions
        FROM generate_series(1, cardinality(event_ids));
        INSERT INTO {marten}.mt_events (seq_id, id, stream_id, version, data, type, timestamp,
            tenant_id, mt_dotnet_type, is_archived{meta_columns})
        SELECT positions[g.number], g.id, keys[g.owner], versions[g.owner] + g.place, g.body, g.type,
            coalesce(times[g.number], clock), {tenant}, g.dotnet_type, false{meta_values}
        FROM unnest(owners, offsets, event_ids, event_types, dotnet_types, bodies) WITH ORDINALITY
            AS g (owner, place, id, type, dotnet_type, body, number);
        INSERT INTO {schema}.payloads (seq_id, flags, first_id, data, metadata, digest)
        SELECT positions[g.number], g.flags,
            CASE WHEN g.place = 1 AND expectations[g.owner] IN (-1, -2) THEN g.id END, g.data,
            g.metadata, md5(g.body::text)::uuid
        FROM unnest(owners, offsets, event_ids, event_flags, event_data, event_metadata, bodies)
            WITH ORDINALITY AS g (owner, place, id, flags, data, metadata, body, number)
        -- Without its bytes, an event has a row only if a retry is found by it.
        WHERE g.data IS NOT NULL OR g.place = 1 AND expectations[g.owner] IN (-1, -2);
        outcome := 1;
        RETURN;
    EXCEPTION
        WHEN lock_not_available OR deadlock_detected OR SQLSTATE 'AN010' THEN
            outcome := 2;
        WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS hit = CONSTRAINT_NAME;
            IF hit IN ('idx_mt_events_event_id', 'mt_events_default_id_is_archived_idx',
                'mt_events_default_id_idx') THEN
                outcome := 3;
            ELSIF hit IN ('pkey_mt_events_seq_id', 'mt_events_default_pkey') THEN
                RAISE;
            ELSE
                outcome := 2;
            END IF;
    END;
    IF positions IS NOT NULL THEN
        BEGIN
            PERFORM set_config('lock_timeout', '30ms', true);
            INSERT INTO {marten}.mt_streams (id, version, timestamp, created, tenant_id, is_archived)
            VALUES ({tombstone_key}, 0, clock, clock, {tenant}, false) ON CONFLICT DO NOTHING;
            INSERT INTO {marten}.mt_events (seq_id, id, stream_id, version, data, type, timestamp,
                tenant_id, mt_dotnet_type, is_archived)
            SELECT number, gen_random_uuid(), {tombstone_key}, number, '{}', 'tombstone', '-infinity',
                {tenant}, 'JasperFx.Events.Tombstone, JasperFx.Events', false
            FROM unnest(positions) AS number;
        EXCEPTION WHEN OTHERS THEN
            -- The numbers stay a gap, which Marten's projections pass after some seconds.
            NULL;
        END;
    END IF;
END
$$;

-- Says how far readers may read, as the function of the same name in annals-postgres does. Whoever takes
-- a number holds a lock on the sequence until his transaction ends, also after an error, and whatever
-- program he is. A number below `visible` was taken before that one, and so was its lock. Numbers count
-- whoever wrote them: of archived and skipped events, tombstones, and other tenants.
--
-- `in_advance`: there are programs that take numbers in a transaction of their own, before they insert
-- the events. Then having no transaction under way does not close a gap by itself, and transactions that
-- write to the tables count, too.
CREATE FUNCTION {schema}.horizon(
    lock_key integer, known bigint, in_advance boolean,
    OUT settled bigint, OUT visible bigint, OUT in_flight text[]
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The most positions that are searched for a gap.
    most constant bigint := 1000;
    -- The same if writers take numbers in advance. A store that was just opened looks at all events.
    longest constant bigint := 1000000;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {schema_name} USING ERRCODE = 'AN001';
    END IF;
    SELECT max(e.seq_id) INTO visible FROM {marten}.mt_events AS e;
    visible := greatest(visible, known);
    settled := known;
    IF in_advance THEN
        -- Nothing but an event at each position settles them, so this goes on to the first gap.
        SELECT coalesce(min(run.settled), least(visible, known + longest)) INTO settled FROM (
            SELECT known + e.number - 1 AS settled FROM (
                SELECT e.seq_id, row_number() OVER (ORDER BY e.seq_id) AS number
                FROM {marten}.mt_events AS e WHERE e.seq_id > known AND e.seq_id <= visible
                ORDER BY e.seq_id LIMIT longest
            ) AS e WHERE e.seq_id <> known + e.number LIMIT 1
        ) AS run;
    ELSIF visible - known <= most THEN
        SELECT known + count(*) INTO settled FROM (
            SELECT e.seq_id, row_number() OVER (ORDER BY e.seq_id) AS number
            FROM {marten}.mt_events AS e WHERE e.seq_id > known AND e.seq_id <= visible
        ) AS event WHERE event.seq_id = known + event.number;
    END IF;
    IF settled < visible THEN
        SELECT array_agg(DISTINCT l.virtualtransaction) INTO in_flight FROM pg_locks AS l
        WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (l.relation = '{marten}.mt_events_sequence'::regclass
                OR in_advance AND l.relation IN {written});
        IF in_flight IS NULL AND NOT in_advance THEN
            settled := visible;
        END IF;
    END IF;
END
$$;

-- Removes the events of a stream up to a version, and gives the stream a new state unless
-- `new_state` is NULL. If the stream is no longer as the caller knows it, the function changes nothing
-- and returns false.
CREATE FUNCTION {schema}.remove(
    lock_key integer, stream_name text, known_state smallint, known_version bigint,
    new_state smallint, up_to bigint
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stream_key {id} := {schema}.key_of(stream_name);
    rows_found bigint;
    head record;
BEGIN
    IF lock_key <> {key} THEN
        RAISE EXCEPTION 'the schema % holds another store now', {schema_name} USING ERRCODE = 'AN001';
    END IF;
    SELECT count(*) INTO rows_found FROM (
        SELECT FROM {marten}.mt_streams AS s WHERE s.id = stream_key{s_tenant} FOR UPDATE
    ) AS locked;
    SELECT s.state, s.version INTO head FROM {schema}.streams AS s
    WHERE s.key = stream_key AND s.name = stream_name;
    IF head.state IS DISTINCT FROM known_state OR coalesce(head.version, 0) <> known_version THEN
        RETURN false;
    END IF;
    IF rows_found = 0 THEN
        INSERT INTO {marten}.mt_streams (id, type, version, timestamp, created, tenant_id, is_archived)
        VALUES (stream_key, {schema}.type_of(stream_name), 0, clock_timestamp(), clock_timestamp(),
            {tenant}, new_state = 2)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        {insert_name_removed}
    ELSIF new_state = 2 THEN
        {archive_stream}
    ELSE
        UPDATE {marten}.mt_events AS e SET is_archived = true
        WHERE e.stream_id = stream_key{e_tenant} AND e.version <= up_to AND e.is_archived = false;
    END IF;
    INSERT INTO {schema}.removed AS r (id, removed_to, deleted_at)
    VALUES (stream_key, least(up_to, known_version),
        CASE WHEN new_state IS NULL THEN 0 ELSE known_version END)
    ON CONFLICT (id) DO UPDATE SET
        removed_to = greatest(CASE WHEN r.removed_to <= known_version THEN r.removed_to ELSE 0 END,
            excluded.removed_to),
        deleted_at = CASE WHEN new_state IS NOT NULL THEN excluded.deleted_at
            WHEN r.deleted_at <= known_version THEN r.deleted_at ELSE 0 END;
    IF new_state IS NOT NULL THEN
        DELETE FROM {schema}.snapshots AS snapshot WHERE snapshot.stream = stream_name;
    END IF;
    RETURN true;
END
$$;
