-- The streams that were ever written to. A stream row at version 0 without events, and that of Marten's
-- tombstones, are none.
SELECT s.id AS key, {name_of_stream} AS name, s.type,
    (CASE WHEN {s_closed} THEN 2 WHEN {s_deleted} THEN 1 ELSE 0 END)::smallint AS state,
    v.version,
    {deleted_at} AS deleted_at,
    (SELECT e.version FROM {marten}.mt_events AS e WHERE e.stream_id = s.id{e_tenant}{first_shown}
        ORDER BY e.version LIMIT 1) AS first_version
FROM {streams} AS s {names_of_streams}
LEFT JOIN {schema}.removed AS r ON r.id = s.id
CROSS JOIN LATERAL (
    SELECT greatest(s.version, 0, (
        SELECT CASE WHEN {is_tombstone} THEN 0 ELSE e.version END FROM {marten}.mt_events AS e
        WHERE e.stream_id = s.id{e_tenant} ORDER BY e.version DESC LIMIT 1
    )) AS version OFFSET 0
) AS v
WHERE {listed}
