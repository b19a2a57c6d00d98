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
-- look into `tasks` for each event.
SELECT e.*, s.pending, s.now, s.xmin::text::bigint AS low, s.xmax::text::bigint AS high
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
           (SELECT xid FROM events ORDER BY xid DESC, seq DESC LIMIT 1)
               >= pg_snapshot_xmin(pg_current_snapshot()) IS TRUE AS pending,
           clock_timestamp() AS now
) s
LEFT JOIN LATERAL (
    SELECT xid, seq, type, at, task_id AS id, kind, status, priority, run_at, attempt, version, started_at,
           error_type, error_at, cancel_requested_at, was
    FROM events
    WHERE (xid, seq) > ($1::text::xid8, $2) AND xid < s.xmin
    ORDER BY xid, seq
    LIMIT $3
) e ON true
ORDER BY e.xid, e.seq;

-- name: place
-- Which log this is, the greatest key that was dropped from it, and its present end: every event below xmin is
-- committed or never will be, and every event to come has a key above (xmin, 0).
SELECT log_epoch() AS epoch, floor_xid::text::bigint AS floor_xid, floor_seq,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
FROM meta;

-- name: notify
-- Empty: it wakes who listens, and what happened is in the log.
NOTIFY taskd;
