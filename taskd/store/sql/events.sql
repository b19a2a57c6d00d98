-- The event log, read.

-- name: read
-- What is behind a key, in the order that all readers share. Rows at or above the snapshot's xmin are left for later:
-- a transaction that is still open may yet commit events before them. `pending` says that there are such rows, so
-- that the reader looks again soon and not at its next poll. `now` is when it was read. Transactions below `low` have
-- ended, those from `high` on have not begun. One row with a null key when there is nothing to read.
-- The planner takes conditions on xid for a third of the log each. So nothing here leaves it the choice to read all of a
-- table: the last key is an end of the index, and LATERAL has each event look for its own task.
WITH page AS MATERIALIZED (
    SELECT * FROM events
    WHERE (xid, seq) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, seq
    LIMIT $3
)
SELECT e.xid, e.seq, e.type, e.at,
       e.task_id AS id, e.owner, e.kind, coalesce(e.title, t.title) AS title,
       coalesce(e.description, t.description) AS description, coalesce(e.payload, t.payload) AS payload,
       e.status, e.priority, e.run_at, e.attempt, e.max_attempts, e.timeout_seconds, e.progress, e.progress_note,
       e.result, e.error_type, e.error_message, e.error_attempt, e.error_at, e.version, e.created_at, e.updated_at,
       e.started_at, e.finished_at, e.cancel_requested_at, e.was,
       s.pending, s.now, s.xmin::text::bigint AS low, s.xmax::text::bigint AS high
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
           (SELECT xid FROM events ORDER BY xid DESC, seq DESC LIMIT 1)
               >= pg_snapshot_xmin(pg_current_snapshot()) IS TRUE AS pending,
           clock_timestamp() AS now
) s
LEFT JOIN page e ON true
LEFT JOIN LATERAL (
    SELECT title, description, payload FROM tasks WHERE id = e.task_id AND e.title IS NULL LIMIT 1
) t ON true
ORDER BY e.xid, e.seq;

-- name: read_bare
-- As `read`, for a process that shows no task to anybody and only counts and wakes: what that takes, and so without a
-- look into `tasks` for each event. If $4, only those events come alone by which somebody is woken or stopped; of all
-- others there are the sums that `service.census` makes of events: what they add to the number of tasks in each status,
-- and how many attempts ended (not by the rescue in leases.sql) after how long. The first row has no event but all that
-- there is once only; `xid_last` and `seq_last` are the place behind all that were read, `number` is how many.
WITH page AS MATERIALIZED (
    SELECT xid, seq, type, at, task_id AS id, kind, status, priority, run_at, attempt, version, started_at,
           error_type, error_at, cancel_requested_at, was,
           NOT $4 OR type = 'created' OR status IN ('new', 'scheduled')
               OR status = 'running' AND cancel_requested_at IS NOT NULL AS alone
    FROM events
    WHERE (xid, seq) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, seq
    LIMIT $3
), summed AS MATERIALIZED (
    SELECT was, CASE WHEN type <> 'deleted' THEN status END AS becomes, count(*) AS number,
           count(*) FILTER (WHERE has_ended) AS ended, sum(at - started_at) FILTER (WHERE has_ended) AS took
    FROM (
        SELECT *, was = 'running' AND status <> 'running' AND started_at IS NOT NULL
                   AND (error_type = 'WorkerLost' AND error_at = at) IS NOT TRUE AS has_ended
        FROM page WHERE NOT alone
    ) p
    WHERE was <> ''
    GROUP BY was, becomes
), steps AS (
    SELECT status, sum(number)::bigint AS number
    FROM (SELECT becomes AS status, number FROM summed UNION ALL SELECT was, -number FROM summed) s
    WHERE status IS NOT NULL
    GROUP BY status
), head AS (
    SELECT (SELECT xid FROM events ORDER BY xid DESC, seq DESC LIMIT 1)
               >= pg_snapshot_xmin(pg_current_snapshot()) IS TRUE AS pending,
           clock_timestamp() AS now, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS low,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS high,
           (SELECT count(*) FROM page) AS number, last.xid AS xid_last, last.seq AS seq_last,
           (SELECT array_agg(status) FROM steps) AS statuses, (SELECT array_agg(number) FROM steps) AS steps,
           (SELECT coalesce(sum(ended), 0)::bigint FROM summed) AS ended,
           (SELECT coalesce(extract(epoch FROM sum(took)), 0)::float8 FROM summed) AS took
    FROM (SELECT) one LEFT JOIN (SELECT xid, seq FROM page ORDER BY xid DESC, seq DESC LIMIT 1) last ON true
)
SELECT e.xid, e.seq, e.type, e.at, e.id, e.kind, e.status, e.priority, e.run_at, e.attempt, e.version, e.started_at,
       e.error_type, e.error_at, e.cancel_requested_at, e.was, head.*
FROM head FULL JOIN (SELECT * FROM page WHERE alone) e ON false
ORDER BY e.xid NULLS FIRST, e.seq;

-- name: place
-- Which log this is, the greatest key that was dropped from it, and its present end: every event below xmin is
-- committed or never will be, and every event to come has a key above (xmin, 0).
SELECT log_epoch() AS epoch, floor_xid::text::bigint AS floor_xid, floor_seq,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
FROM meta;

-- name: notify
-- Empty: it wakes who listens, and what happened is in the log.
NOTIFY taskd;
