-- The event log, read.

-- name: read
-- What is behind a key, in the order that all readers share. Rows at or above the snapshot's xmin are left for later:
-- a transaction that is still open may yet commit events before them. `pending` says that there are such rows, so
-- that the reader looks again soon and not at its next poll. `now` is when it was read. Transactions below `low` have
-- ended, those from `high` on have not begun. One row with a null key when there is nothing to read.
SELECT e.*, s.pending, s.now, s.xmin::text::bigint AS low, s.xmax::text::bigint AS high
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
           EXISTS (SELECT FROM events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())) AS pending,
           clock_timestamp() AS now
) s
LEFT JOIN LATERAL (
    SELECT * FROM event_rows
    WHERE (xid, seq) > ($1::text::xid8, $2) AND xid < s.xmin
    ORDER BY xid, seq
    LIMIT $3
) e ON true
ORDER BY e.xid, e.seq;

-- name: read_bare
-- As `read`, for a process that shows no task to anybody and only counts and wakes: what that takes, and so without a
-- look into `tasks` for each event.
SELECT e.*, s.pending, s.now, s.xmin::text::bigint AS low, s.xmax::text::bigint AS high
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
           EXISTS (SELECT FROM events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())) AS pending,
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
