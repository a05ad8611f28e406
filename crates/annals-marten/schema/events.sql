-- The events that can be read. The bytes that annals wrote are those of the event as long as nobody has
-- updated its row since (then both rows are of one transaction), or as it has the same data still.
SELECT e.seq_id AS position, e.version,
    least(greatest(e.timestamp, timestamptz '0001-01-01 00:00:00+00'),
        timestamptz '9999-12-31 23:59:59.999999+00') AS recorded_at,
    e.id,
    CASE WHEN {is_exact} THEN p.flags
        ELSE ((CASE WHEN {bdata} IS NULL AND NOT {is_wrapped} THEN 1 ELSE 0 END)
            + (CASE WHEN {metadata} = '{}' THEN 0 ELSE 2 END))::smallint END AS flags,
    e.type,
    CASE WHEN {is_exact} THEN p.data
        WHEN {is_wrapped} THEN decode(e.data ->> '$binary', 'base64')
        ELSE coalesce({bdata}, convert_to(e.data::text, 'UTF8')) END AS data,
    CASE WHEN {is_exact} THEN p.metadata
        WHEN {metadata} = '{}' THEN ''::bytea
        ELSE convert_to(({metadata})::text, 'UTF8') END AS metadata,
    {name_of_event} AS stream, e.stream_id AS key
FROM {marten}.mt_events AS e {streams_of_events}
LEFT JOIN {schema}.payloads AS p ON p.seq_id = e.seq_id
WHERE {e_shown}{e_skipped}{e_tenant} AND ({is_tombstone}) IS NOT TRUE
