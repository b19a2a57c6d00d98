-- name: register
-- Again with the same lease: as new.
INSERT INTO leases (lease, role, name, lock_key, started_at, renewed_at, expires_at)
SELECT $1, $2, $3, $4, now, now, now + make_interval(secs => $5) FROM (SELECT clock_timestamp() AS now OFFSET 0) t
ON CONFLICT (lease) DO UPDATE SET renewed_at = excluded.renewed_at, expires_at = excluded.expires_at

-- name: renew
-- A lease that has expired but was not taken back is still its owner's: after an outage of the database nothing is lost.
-- No row: it is gone. With it comes what its owner should know: how many others live, whether one has not renewed for
-- longer than it should ($3), and the running tasks of this lease whose handlers are to be stopped.
WITH renewed AS (
    UPDATE leases l SET renewed_at = t.now, expires_at = t.now + make_interval(secs => $2)
    FROM (SELECT clock_timestamp() AS now OFFSET 0) t
    WHERE l.lease = $1
    RETURNING l.lease
)
SELECT o.others, o.overdue, c.task_ids, c.attempts
FROM renewed,
    (SELECT count(*) FILTER (WHERE expires_at > clock_timestamp())::integer AS others,
        coalesce(bool_or(renewed_at < clock_timestamp() - make_interval(secs => $3)), false) AS overdue
     FROM leases WHERE lease <> $1) o,
    (SELECT coalesce(array_agg(task_id), '{}') AS task_ids, coalesce(array_agg(attempt), '{}') AS attempts
     FROM task_states WHERE status = 'running' AND lease = $1 AND cancel_requested_at IS NOT NULL) c

-- name: end
-- The process stops in order.
DELETE FROM leases WHERE lease = $1

-- name: left
-- Whether `dead` and `rescue` may have something to do, without taking a lock.
WITH locks AS MATERIALIZED (
    SELECT (classid::bigint << 32) | objid::bigint AS lock_key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT EXISTS (SELECT FROM leases l
        WHERE pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => $1)
            AND (l.expires_at < clock_timestamp()
                 OR (l.renewed_at < clock_timestamp() - make_interval(secs => $2)
                     AND NOT EXISTS (SELECT FROM locks WHERE locks.lock_key = l.lock_key))))
    OR EXISTS (SELECT FROM task_states s
        WHERE s.status = 'running' AND NOT EXISTS (SELECT FROM leases l WHERE l.lease = s.lease))

-- name: dead
-- The leases whose process is dead, locked: expired, or without the advisory lock of its listener while it missed two
-- renewals. Never soon after a start of the server, when nobody could renew and no lock is held. The lock makes a
-- renewal that comes at the same moment wait, and then find the lease gone (`forget`).
WITH locks AS MATERIALIZED (
    SELECT (classid::bigint << 32) | objid::bigint AS lock_key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT l.lease FROM leases l
WHERE pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => $1)
    AND (l.expires_at < clock_timestamp()
         OR (l.renewed_at < clock_timestamp() - make_interval(secs => $2)
             AND NOT EXISTS (SELECT FROM locks WHERE locks.lock_key = l.lock_key)))
FOR UPDATE OF l SKIP LOCKED

-- name: rescue
-- Take back running tasks of dead leases ($1) and of leases that are not there. The attempt stays spent, so that a task
-- that kills its worker ends. FAIL, RETRY_LATER and STOP of `domain.state`.
WITH held AS MATERIALIZED (
    SELECT s.task_id,
        CASE WHEN s.cancel_requested_at IS NOT NULL THEN 'cancelled'
             WHEN s.attempt >= s.max_attempts THEN 'failed'
             ELSE 'scheduled' END AS status,
        clock_timestamp() AS now
    FROM task_states s
    WHERE s.status = 'running'
        AND (s.lease = ANY ($1::uuid[]) OR NOT EXISTS (SELECT FROM leases l WHERE l.lease = s.lease))
    LIMIT $2
    FOR UPDATE OF s SKIP LOCKED
), rescued AS (
    UPDATE task_states s SET
        was = s.status,
        status = h.status,
        event = CASE WHEN h.status = 'scheduled' THEN 'retrying' ELSE h.status END,
        run_at = CASE WHEN h.status = 'scheduled' THEN h.now ELSE s.run_at END,
        error_type = CASE WHEN h.status = 'cancelled' THEN s.error_type ELSE 'WorkerLost' END,
        error_message = CASE WHEN h.status = 'cancelled' THEN s.error_message
                             ELSE 'the process that ran it is gone' END,
        error_attempt = CASE WHEN h.status = 'cancelled' THEN s.error_attempt ELSE s.attempt END,
        error_at = CASE WHEN h.status = 'cancelled' THEN s.error_at ELSE h.now END,
        finished_at = CASE WHEN h.status = 'scheduled' THEN NULL ELSE h.now END,
        lease = NULL, version = s.version + 1, updated_at = h.now,
        event_xid = greatest(s.event_xid, pg_current_xact_id())
    FROM held h WHERE s.task_id = h.task_id
    RETURNING s.kind, s.status
)
SELECT kind, status FROM rescued

-- name: forget
-- Dead leases under which nothing runs any more, in the transaction that holds their rows.
DELETE FROM leases l WHERE l.lease = ANY ($1::uuid[])
    AND NOT EXISTS (SELECT FROM task_states s WHERE s.status = 'running' AND s.lease = l.lease)
