-- name: claim
-- Up to $3 ready tasks for the lease $1, of the ranges $2 and $4 to $6 (`store.passed`): the highest priority first,
-- then the oldest, over all ranges. `want` looks, without locks, how many of each range belong to the best $7; `taken`
-- then locks as many of each in the order of the index `task_states_ready`, stepping over what others have locked, until
-- it has $3. Materialized, or the planner may run a locking LIMIT more than once. A lease that is gone or expired gets
-- nothing. There is always at least one row; `wanted` says how many were seen, so that a claimer who lost races can look
-- again, and further. `= ANY (ARRAY(…))` because the planner takes a LIMIT that it doesn't know for a tenth of the table,
-- and would join by reading all of it; LATERAL and LIMIT because it joined what was claimed with all of `tasks`, by a plan
-- from when there were few.
WITH holder AS MATERIALIZED (
    SELECT lease FROM leases WHERE lease = $1 AND expires_at > clock_timestamp()
), want AS MATERIALIZED (
    SELECT best.kind, best.rank, best.after, best.last, count(*) AS number
    FROM (
        SELECT asked.*
        FROM holder CROSS JOIN unnest($2::text[], $4::smallint[], $5::uuid[], $6::smallint[])
            AS asked (kind, rank, after, last)
        CROSS JOIN LATERAL (
            SELECT -s.priority AS its_rank, s.task_id FROM task_states s
            WHERE s.kind = asked.kind AND s.status = 'new'
                AND (-s.priority, s.task_id) > (asked.rank, asked.after) AND -s.priority <= asked.last
            ORDER BY -s.priority, s.task_id LIMIT $7
        ) ready
        ORDER BY ready.its_rank, ready.task_id LIMIT $7
    ) best
    GROUP BY best.kind, best.rank, best.after, best.last
    ORDER BY best.rank
), taken AS MATERIALIZED (
    SELECT locked.task_id
    FROM want CROSS JOIN LATERAL (
        SELECT s.task_id FROM task_states s
        WHERE s.kind = want.kind AND s.status = 'new'
            AND (-s.priority, s.task_id) > (want.rank, want.after) AND -s.priority <= want.last
        ORDER BY -s.priority, s.task_id LIMIT want.number
        FOR UPDATE SKIP LOCKED
    ) locked
    LIMIT $3
), claimed AS (
    UPDATE task_states s SET
        was = s.status, status = 'running', attempt = s.attempt + 1, lease = $1, started_at = clock_timestamp(),
        progress = NULL, progress_note = NULL, event = 'started', version = s.version + 1, updated_at = clock_timestamp(),
        event_xid = greatest(s.event_xid, pg_current_xact_id())
    WHERE s.task_id = ANY (ARRAY(SELECT task_id FROM taken))
    RETURNING s.*
)
SELECT t.id, t.owner, t.kind, t.title, t.description, t.payload, c.status, c.priority, c.run_at, c.attempt,
    c.max_attempts, c.timeout_seconds, c.progress, c.progress_note, c.result, c.error_type, c.error_message,
    c.error_attempt, c.error_at, c.version, t.created_at, c.updated_at, c.started_at, c.finished_at,
    c.cancel_requested_at, extract(epoch FROM c.started_at - c.ready_at)::float8 AS waited, seen.wanted
FROM (SELECT coalesce(sum(number), 0)::integer AS wanted FROM want) seen
LEFT JOIN claimed c ON true
LEFT JOIN LATERAL (SELECT * FROM tasks WHERE id = c.task_id LIMIT 1) t ON true
ORDER BY c.priority DESC, c.task_id

-- name: finish
-- The ends of many attempts. `mine` locks, in the order of ids as every batch does, the tasks whose running attempt is
-- still the one that ended under its lease (it has one exactly while it runs); what is not among the rows was refused.
-- Arrays $6 to $8 may be empty, which is nulls for all. One look by key for each: the planner does not know how many are
-- given, and of a join it made each with each. A task whose cancellation was asked for is tried no more. FAIL,
-- RETRY_LATER, GIVE_BACK, STOP and SUCCEED of `domain.state`.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::float8[])
        WITH ORDINALITY AS g (task_id, attempt, lease, ending, result, error_type, error_message, delay, n)
    ORDER BY task_id
), mine AS MATERIALIZED (
    SELECT g.*, clock_timestamp() AS now,
        CASE WHEN g.ending = 'done' THEN 'done'
             WHEN g.ending = 'cancelled' OR held.cancel_requested_at IS NOT NULL THEN 'cancelled'
             WHEN g.ending = 'failed' THEN 'failed'
             ELSE 'scheduled' END AS status
    FROM given g CROSS JOIN LATERAL (
        SELECT s.cancel_requested_at FROM task_states s
        WHERE s.task_id = g.task_id AND s.attempt = g.attempt AND s.lease = g.lease
        FOR UPDATE
    ) held
)
UPDATE task_states s SET
    was = s.status,
    status = m.status,
    event = CASE WHEN m.status = 'scheduled' THEN 'retrying' ELSE m.status END,
    run_at = CASE WHEN m.status = 'scheduled' THEN m.now + make_interval(secs => coalesce(m.delay, 0)) ELSE s.run_at END,
    attempt = CASE WHEN m.ending = 'released' THEN s.attempt - 1 ELSE s.attempt END,
    result = CASE WHEN m.ending = 'done' THEN m.result::json ELSE s.result END,
    error_type = CASE WHEN m.ending IN ('failed', 'retry') THEN m.error_type ELSE s.error_type END,
    error_message = CASE WHEN m.ending IN ('failed', 'retry') THEN m.error_message ELSE s.error_message END,
    error_attempt = CASE WHEN m.ending IN ('failed', 'retry') THEN m.attempt ELSE s.error_attempt END,
    error_at = CASE WHEN m.ending IN ('failed', 'retry') THEN m.now ELSE s.error_at END,
    finished_at = CASE WHEN m.status = 'scheduled' THEN NULL ELSE m.now END,
    lease = NULL, version = s.version + 1, updated_at = m.now,
    event_xid = greatest(s.event_xid, pg_current_xact_id())
FROM mine m
WHERE s.task_id = m.task_id
RETURNING m.n, s.kind, s.status, extract(epoch FROM s.updated_at - s.started_at)::float8 AS took

-- name: report
-- Progress of many attempts, guarded and locked like their ends.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::float8[], $5::text[])
        AS g (task_id, attempt, lease, progress, note)
    ORDER BY task_id
), mine AS MATERIALIZED (
    SELECT g.* FROM given g CROSS JOIN LATERAL (
        SELECT FROM task_states s
        WHERE s.task_id = g.task_id AND s.attempt = g.attempt AND s.lease = g.lease
        FOR UPDATE
    ) held
)
UPDATE task_states s SET
    was = s.status, progress = m.progress, progress_note = m.note, event = 'progress', version = s.version + 1,
    updated_at = clock_timestamp(), event_xid = greatest(s.event_xid, pg_current_xact_id())
FROM mine m
WHERE s.task_id = m.task_id
RETURNING s.task_id, s.attempt, s.lease

-- name: promote
-- Scheduled tasks whose time has come become ready, and the seconds until the next one's time. Two processes that do
-- this at once step over each other's rows. PROMOTE of `domain.state`.
WITH due AS MATERIALIZED (
    SELECT task_id FROM task_states
    WHERE status = 'scheduled' AND run_at <= statement_timestamp()
    ORDER BY run_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), promoted AS (
    UPDATE task_states s SET
        was = s.status, status = 'new', event = 'updated', version = s.version + 1, updated_at = clock_timestamp(),
        ready_at = s.run_at, event_xid = greatest(s.event_xid, pg_current_xact_id())
    WHERE s.task_id = ANY (ARRAY(SELECT task_id FROM due))
    RETURNING s.task_id
)
SELECT (SELECT count(*) FROM promoted) AS promoted,
    (SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM task_states
     WHERE status = 'scheduled' AND run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS next_in

-- name: waiting_kinds
-- The kinds that have ready tasks: one step down the index for each kind, however many tasks it has.
WITH RECURSIVE waiting AS (
    (SELECT kind FROM task_states WHERE status = 'new' ORDER BY kind LIMIT 1)
    UNION ALL
    SELECT (SELECT s.kind FROM task_states s WHERE s.status = 'new' AND s.kind > w.kind ORDER BY s.kind LIMIT 1)
    FROM waiting w WHERE w.kind IS NOT NULL
)
SELECT kind FROM waiting WHERE kind IS NOT NULL
