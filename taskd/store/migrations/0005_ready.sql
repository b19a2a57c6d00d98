-- Ready tasks in the order of claims, all ascending: so that a claim can begin behind a place in it, by a comparison of
-- rows (docs/decisions/0009-queue-speed.md).
DROP INDEX task_states_ready;
CREATE INDEX task_states_ready ON task_states (kind, (-priority), task_id) WHERE status = 'new';

-- Each process looks every two seconds for those of its running tasks that are to be stopped, few of thousands.
CREATE INDEX task_states_stopping ON task_states (lease)
    WHERE status = 'running' AND cancel_requested_at IS NOT NULL;
