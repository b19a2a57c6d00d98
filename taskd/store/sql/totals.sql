-- name: at
-- The numbers at the mark and what lies behind it up to a key, of one snapshot. The bounds of `xid` alone add nothing
-- but an estimate: the planner takes a comparison of rows for a third of the table, and would read it from end to end.
SELECT t.mark_xid::text::bigint AS xid, t.mark_seq AS seq,
       t.scheduled + coalesce(d.scheduled, 0) AS scheduled, t.new + coalesce(d.new, 0) AS new,
       t.running + coalesce(d.running, 0) AS running, t.done + coalesce(d.done, 0) AS done,
       t.failed + coalesce(d.failed, 0) AS failed, t.cancelled + coalesce(d.cancelled, 0) AS cancelled
FROM task_totals t CROSS JOIN LATERAL (
    SELECT sum(scheduled)::bigint AS scheduled, sum(new)::bigint AS new, sum(running)::bigint AS running,
           sum(done)::bigint AS done, sum(failed)::bigint AS failed, sum(cancelled)::bigint AS cancelled
    FROM task_steps
    WHERE xid >= t.mark_xid AND xid <= $1::text::xid8
        AND (xid, seq) > (t.mark_xid, t.mark_seq) AND (xid, seq) <= ($1::text::xid8, $2)
) d

-- name: present
-- The numbers with all that is committed, also what readers of the log must wait for: of this snapshot, and of no place.
SELECT t.scheduled + coalesce(d.scheduled, 0) AS scheduled, t.new + coalesce(d.new, 0) AS new,
       t.running + coalesce(d.running, 0) AS running, t.done + coalesce(d.done, 0) AS done,
       t.failed + coalesce(d.failed, 0) AS failed, t.cancelled + coalesce(d.cancelled, 0) AS cancelled
FROM task_totals t CROSS JOIN LATERAL (
    SELECT sum(scheduled)::bigint AS scheduled, sum(new)::bigint AS new, sum(running)::bigint AS running,
           sum(done)::bigint AS done, sum(failed)::bigint AS failed, sum(cancelled)::bigint AS cancelled
    FROM task_steps WHERE xid >= t.mark_xid AND (xid, seq) > (t.mark_xid, t.mark_seq)
) d

-- name: fold
-- Moves the mark over the next $1 events at the most, and returns over how many (`xid >= …` as for `at`). Two at once: the second finds the mark
-- elsewhere than where it began, and does nothing. Only events that all readers may have, as in `events.read`. What is
-- to be added is known before the row is written, so the transaction has an id, which holds readers back, for a moment
-- only.
WITH next AS MATERIALIZED (
    SELECT s.* FROM task_totals m CROSS JOIN LATERAL (
        SELECT * FROM task_steps
        WHERE xid >= m.mark_xid AND (xid, seq) > (m.mark_xid, m.mark_seq)
            AND xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY xid, seq LIMIT $1
    ) s
), added AS MATERIALIZED (
    SELECT count(*) AS number, sum(scheduled) AS scheduled, sum(new) AS new, sum(running) AS running,
           sum(done) AS done, sum(failed) AS failed, sum(cancelled) AS cancelled
    FROM next
), last AS MATERIALIZED (
    SELECT xid, seq FROM next ORDER BY xid DESC, seq DESC LIMIT 1
)
UPDATE task_totals t SET
    mark_xid = last.xid, mark_seq = last.seq, scheduled = t.scheduled + added.scheduled, new = t.new + added.new,
    running = t.running + added.running, done = t.done + added.done, failed = t.failed + added.failed,
    cancelled = t.cancelled + added.cancelled
FROM task_totals m, added, last
WHERE (t.mark_xid, t.mark_seq) = (m.mark_xid, m.mark_seq)
RETURNING added.number

-- name: oldest_ready
-- The first entry of the index `task_states_oldest`, whose two conditions these are.
SELECT extract(epoch FROM clock_timestamp() - ready_at)::float8 FROM task_states
WHERE status = 'new' AND lease IS NULL ORDER BY ready_at LIMIT 1
