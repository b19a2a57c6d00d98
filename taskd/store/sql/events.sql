-- The event log, read.

-- name: read
-- What is behind a key, in the order that all readers share. Rows at or above the snapshot's xmin are left for later:
-- a transaction that is still open may yet commit events before them. `pending` says that there are such rows, so
-- that the reader looks again soon and not at its next poll. `now` is when it was read. Transactions below `low` have
-- ended, those from `high` on have not begun. The first row has these, and no event.
-- The planner takes conditions on xid for a third of the log each. So nothing here leaves it the choice to read all of a
-- table: the last key is an end of the index, and LATERAL has each event look for its own task.
WITH page AS MATERIALIZED (
    SELECT * FROM events
    WHERE (xid, seq) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, seq
    LIMIT $3
)
SELECT e.*, head.*
FROM (
    SELECT (SELECT xid FROM events ORDER BY xid DESC, seq DESC LIMIT 1)
               >= pg_snapshot_xmin(pg_current_snapshot()) IS TRUE AS pending,
           clock_timestamp() AS now, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS low,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS high
) head
FULL JOIN (
    SELECT p.xid, p.seq, p.type, p.at,
           p.task_id AS id, p.owner, p.kind, coalesce(p.title, t.title) AS title,
           coalesce(p.description, t.description) AS description, coalesce(p.payload, t.payload) AS payload,
           p.status, p.priority, p.run_at, p.attempt, p.max_attempts, p.timeout_seconds, p.progress, p.progress_note,
           p.result, p.error_type, p.error_message, p.error_attempt, p.error_at, p.version, p.created_at, p.updated_at,
           p.started_at, p.finished_at, p.cancel_requested_at, p.was
    FROM page p
    LEFT JOIN LATERAL (
        SELECT title, description, payload FROM tasks WHERE id = p.task_id AND p.title IS NULL LIMIT 1
    ) t ON true
) e ON false
ORDER BY e.xid NULLS FIRST, e.seq;

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
