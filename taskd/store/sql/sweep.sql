-- name: expired
-- Final tasks that were kept long enough. Both rows of each are locked, for the statements that delete them, and neither
-- is waited for: whoever changes a task locks `tasks` first, and would wait for the other row meanwhile.
WITH old AS MATERIALIZED (
    SELECT task_id FROM task_states
    WHERE finished_at < statement_timestamp() - make_interval(secs => $1)
    ORDER BY finished_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
SELECT id AS task_id FROM tasks WHERE id = ANY (ARRAY(SELECT task_id FROM old))
FOR UPDATE SKIP LOCKED

-- name: forget_keys
-- An idempotency key is good for a day; `claim_key` takes over older ones by itself.
DELETE FROM idempotency WHERE created_at < statement_timestamp() - interval '24 hours'

-- name: rotate
-- All of it in one transaction, by the function of the migration.
SELECT rotate_events(make_interval(hours => $1), make_interval(hours => $2), make_interval(hours => $3))
