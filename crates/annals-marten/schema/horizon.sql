-- What the function `horizon` says, as one statement, for a store that creates nothing. `$1` is not used,
-- `$2` is the position up to which the order is known. The snapshot of a statement is older than what it
-- sees in `pg_locks`: whoever has taken a number below `visible`, and had not committed by then, is
-- either in flight there, or has ended.
SELECT CASE WHEN l.in_flight IS NULL AND NOT {in_advance} THEN v.visible
        ELSE coalesce(run.settled, least(v.visible, $2 + 1000000)) END AS settled,
    v.visible, l.in_flight, pg_is_in_recovery(), {last_given}
FROM (
    SELECT greatest(max(e.seq_id), $2, $1 - $1) AS visible FROM {marten}.mt_events AS e
) AS v
LEFT JOIN LATERAL (
    SELECT $2 + e.number - 1 AS settled FROM (
        SELECT e.seq_id, row_number() OVER (ORDER BY e.seq_id) AS number
        FROM {marten}.mt_events AS e WHERE e.seq_id > $2 AND e.seq_id <= v.visible
        ORDER BY e.seq_id LIMIT 1000000
    ) AS e WHERE e.seq_id <> $2 + e.number LIMIT 1
) AS run ON true
CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT l.virtualtransaction) AS in_flight FROM pg_locks AS l
    WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.relation = '{marten}.mt_events_sequence'::regclass
            OR {in_advance} AND l.relation IN {written})
) AS l
