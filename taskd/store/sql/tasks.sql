-- name: insert
-- Any number of new tasks, of any owners, in one statement: content and state together. One instant for all, so that
-- (created_at, id) keeps the order in which they were given. What is the same for all comes once ($10 to $15), and its
-- array is empty, which `unnest` fills up with NULL: an element of an array costs asyncpg several times what a value does.
WITH instant AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), given AS MATERIALIZED (
    SELECT new_task_id(i.now, g.n::integer) AS id, i.now, g.n, g.title, g.description, g.payload,
           coalesce(g.owner, $10) AS owner, coalesce(g.kind, $11) AS kind, coalesce(g.priority, $12) AS priority,
           coalesce(g.run_at, $13) AS run_at, coalesce(g.max_attempts, $14) AS max_attempts,
           coalesce(g.timeout_seconds, $15) AS timeout_seconds
    FROM instant i, unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[],
                           $7::timestamptz[], $8::integer[], $9::float8[])
        WITH ORDINALITY AS g (title, description, payload, owner, kind, priority, run_at, max_attempts,
                              timeout_seconds, n)
), content AS (
    INSERT INTO tasks (id, owner, kind, title, description, payload, created_at)
    SELECT id, owner, kind, title, description, payload::json, now FROM given ORDER BY n
)
INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                         updated_at, event, event_xid, ready_at, was)
SELECT id, owner, kind, now, CASE WHEN run_at > now THEN 'scheduled' ELSE 'new' END, priority,
       coalesce(run_at, now), max_attempts, timeout_seconds, now, 'created', pg_current_xact_id(), now, ''
FROM given ORDER BY n
RETURNING task_id, status, run_at, created_at

-- name: claim_key
-- First in the transaction: a second request with this key waits here for the first one's end. A key of yesterday is
-- taken over. No row: the key is taken, `answer` has what was said.
INSERT INTO idempotency AS i (owner, key, fingerprint, created_at) VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (owner, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = NULL, created_at = excluded.created_at
    WHERE i.created_at < clock_timestamp() - interval '24 hours'
RETURNING true

-- name: keep_answer
-- Commits with the tasks that it lists.
UPDATE idempotency SET answer = $3 WHERE owner = $1 AND key = $2

-- name: answer
-- What the first request with this key was told.
SELECT fingerprint, answer FROM idempotency WHERE owner = $1 AND key = $2

-- name: get_many
-- Reads by id of many callers at once; the order of rows means nothing.
SELECT * FROM task_rows WHERE id = ANY ($1::uuid[])

-- name: lock
-- A task to be changed, with the database's time. Locks both rows, so that what was waited for is seen.
SELECT r.*, clock_timestamp() AS now FROM task_rows r WHERE r.id = $1 FOR UPDATE

-- name: page
-- Ids by (created_at, id) of the one index that fits, then the rows: a page reads what it shows and no more.
-- LATERAL, because the planner takes a LIMIT that it doesn't know for a tenth of the table, and would join by reading it.
-- With statuses each of them is a range of its own index, cut to the page before they are merged.
WITH page AS MATERIALIZED (
    SELECT p.id, p.created_at
    FROM unnest(:statuses::text[]) AS wanted (status)                                                 --? statuses
    CROSS JOIN LATERAL (                                                                              --? statuses
        SELECT s.task_id AS id, s.created_at FROM task_states s                                       --? statuses
        WHERE s.status = wanted.status                                                                --? statuses
            AND s.owner = :owner                                                                      --? states_owner
            AND s.kind = :kind                                                                        --? states_kind
            AND s.created_at > :created_after                                                         --? states_after
            AND s.created_at < :created_before                                                        --? states_before
            AND (s.created_at, s.task_id) < (:cursor_at::timestamptz, :cursor_id::uuid)               --? states_older
            AND (s.created_at, s.task_id) > (:cursor_at::timestamptz, :cursor_id::uuid)               --? states_newer
        ORDER BY s.created_at DESC, s.task_id DESC                                                    --? states_down
        ORDER BY s.created_at, s.task_id                                                              --? states_up
        LIMIT :limit                                                                                  --? statuses
    ) p                                                                                               --? statuses
    FROM tasks p WHERE true                                                                           --? tasks
        AND p.owner = :owner                                                                          --? tasks_owner
        AND p.kind = :kind                                                                            --? tasks_kind
        AND p.created_at > :created_after                                                             --? tasks_after
        AND p.created_at < :created_before                                                            --? tasks_before
        AND (p.created_at, p.id) < (:cursor_at::timestamptz, :cursor_id::uuid)                        --? tasks_older
        AND (p.created_at, p.id) > (:cursor_at::timestamptz, :cursor_id::uuid)                        --? tasks_newer
    ORDER BY p.created_at DESC, p.id DESC                                                             --? down
    ORDER BY p.created_at, p.id                                                                       --? up
    LIMIT :limit
)
SELECT r.* FROM page CROSS JOIN LATERAL (SELECT * FROM task_rows WHERE id = page.id LIMIT 1) r
ORDER BY page.created_at DESC, page.id DESC                                                           --? down
ORDER BY page.created_at, page.id                                                                     --? up

-- name: keep_content
-- Before the content of tasks changes or goes: their older events get what they still read from `tasks`. The tasks'
-- rows are locked, so no event comes in between.
UPDATE events e SET title = t.title, description = t.description, payload = t.payload
FROM tasks t WHERE t.id = ANY ($1::uuid[]) AND e.task_id = t.id AND e.title IS NULL

-- name: set_content
-- After `keep_content`.
UPDATE tasks SET title = $2, description = $3, payload = $4::text::json WHERE id = $1

-- name: set_state
-- A change that was decided on the locked row. `result` and the error only ever stay or are cleared by it ($14). What it
-- makes ready is so from now on, whatever its `run_at` says.
UPDATE task_states s SET
    was = s.status, status = $2, priority = $3, run_at = $4, attempt = $5, max_attempts = $6, timeout_seconds = $7,
    progress = $8, progress_note = $9, started_at = $10, finished_at = $11, cancel_requested_at = $12,
    event = $13,
    ready_at = CASE WHEN s.status = 'new' THEN s.ready_at ELSE clock_timestamp() END,
    result = CASE WHEN $14 THEN NULL ELSE s.result END,
    error_type = CASE WHEN $14 THEN NULL ELSE s.error_type END,
    error_message = CASE WHEN $14 THEN NULL ELSE s.error_message END,
    error_attempt = CASE WHEN $14 THEN NULL ELSE s.error_attempt END,
    error_at = CASE WHEN $14 THEN NULL ELSE s.error_at END,
    version = s.version + 1, updated_at = clock_timestamp(),
    event_xid = greatest(s.event_xid, pg_current_xact_id())
WHERE s.task_id = $1
RETURNING s.version, s.updated_at

-- name: delete_states
-- After `keep_content` and before `delete_tasks`: the event of the deletion reads the content from `tasks`.
DELETE FROM task_states WHERE task_id = ANY ($1::uuid[])

-- name: delete_tasks
-- Last.
DELETE FROM tasks WHERE id = ANY ($1::uuid[])

-- name: owner_of
-- Whether a task is there, and whose it is.
SELECT owner FROM tasks WHERE id = $1

-- name: history
-- A task's events that are still kept, in the order of its versions, behind one of them.
SELECT * FROM event_rows WHERE id = $1 AND version > $2 ORDER BY version LIMIT $3
