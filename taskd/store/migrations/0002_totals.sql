-- The numbers of tasks by status, exact at any place of the event log, without counting and without a write of their
-- own: each event tells what its task was before, and `task_totals` holds the numbers as of one place. What lies behind
-- it is added when it is asked for (store/totals.py).
--
-- Tables first, in the order in which writers lock them, and the view at once: whoever reads it waits for `events` with
-- the view in hand. From here on nobody has an open change of a task.
ALTER TABLE task_states
    ADD COLUMN was text NOT NULL DEFAULT '',
    -- Of tasks that are ready by now, nobody knows since when.
    ADD COLUMN ready_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE events ADD COLUMN was text;

CREATE OR REPLACE VIEW event_rows AS
SELECT e.xid, e.seq, e.type, e.at,
       e.task_id AS id, e.owner, e.kind, coalesce(e.title, t.title) AS title,
       coalesce(e.description, t.description) AS description, coalesce(e.payload, t.payload) AS payload,
       e.status, e.priority, e.run_at, e.attempt, e.max_attempts, e.timeout_seconds, e.progress, e.progress_note,
       e.result, e.error_type, e.error_message, e.error_attempt, e.error_at, e.version, e.created_at, e.updated_at,
       e.started_at, e.finished_at, e.cancel_requested_at, e.was
FROM events e LEFT JOIN tasks t ON t.id = e.task_id AND e.title IS NULL;

CREATE OR REPLACE FUNCTION log_task_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (
        xid, seq, at, type, task_id, owner, kind, status, priority, run_at, attempt, max_attempts, timeout_seconds,
        progress, progress_note, result, error_type, error_message, error_attempt, error_at, version, created_at,
        updated_at, started_at, finished_at, cancel_requested_at, was)
    SELECT c.event_xid, nextval('event_seq'), c.updated_at, c.event, c.task_id, c.owner, c.kind, c.status,
           c.priority, c.run_at, c.attempt, c.max_attempts, c.timeout_seconds, c.progress, c.progress_note, c.result,
           c.error_type, c.error_message, c.error_attempt, c.error_at, c.version, c.created_at, c.updated_at,
           c.started_at, c.finished_at, c.cancel_requested_at, c.was
    FROM changed c;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION log_task_deletions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (
        xid, seq, at, type, task_id, owner, kind, title, description, payload, status, priority, run_at, attempt,
        max_attempts, timeout_seconds, progress, progress_note, result, error_type, error_message, error_attempt,
        error_at, version, created_at, updated_at, started_at, finished_at, cancel_requested_at, was)
    SELECT greatest(g.event_xid, pg_current_xact_id()), nextval('event_seq'), g.now, 'deleted', g.task_id, g.owner,
           g.kind, t.title, t.description, t.payload, g.status, g.priority, g.run_at, g.attempt, g.max_attempts,
           g.timeout_seconds, g.progress, g.progress_note, g.result, g.error_type, g.error_message, g.error_attempt,
           g.error_at, g.version + 1, g.created_at, g.now, g.started_at, g.finished_at, g.cancel_requested_at, g.status
    FROM (SELECT *, clock_timestamp() AS now FROM gone OFFSET 0) g LEFT JOIN tasks t ON t.id = g.task_id;
    RETURN NULL;
END
$$;

-- Every statement of this program sets `was` and `ready_at`; for a change by hand, or by a process of the release before,
-- this does.
CREATE FUNCTION complete_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.was := OLD.status;
    IF NEW.status = 'new' AND OLD.status <> 'new' AND NEW.ready_at = OLD.ready_at THEN
        NEW.ready_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER complete_change BEFORE UPDATE ON task_states FOR EACH ROW
    WHEN (NEW.was <> OLD.status
        OR (NEW.status = 'new' AND OLD.status <> 'new' AND NEW.ready_at = OLD.ready_at)) EXECUTE FUNCTION complete_change();

-- What each event adds to the number of tasks in each status. One that does not tell what its task was adds nothing.
CREATE VIEW task_steps AS
SELECT xid, seq,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'scheduled')::integer
           - (was IS NOT NULL AND was = 'scheduled')::integer AS scheduled,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'new')::integer
           - (was IS NOT NULL AND was = 'new')::integer AS new,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'running')::integer
           - (was IS NOT NULL AND was = 'running')::integer AS running,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'done')::integer
           - (was IS NOT NULL AND was = 'done')::integer AS done,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'failed')::integer
           - (was IS NOT NULL AND was = 'failed')::integer AS failed,
       (was IS NOT NULL AND type <> 'deleted' AND status = 'cancelled')::integer
           - (was IS NOT NULL AND was = 'cancelled')::integer AS cancelled
FROM events;

-- The numbers with all events up to the mark, and none behind it. Whoever moves the mark adds what it passes.
CREATE TABLE task_totals (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    mark_xid xid8 NOT NULL DEFAULT '0',
    mark_seq bigint NOT NULL DEFAULT 0,
    scheduled bigint NOT NULL DEFAULT 0,
    new bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
);
INSERT INTO task_totals DEFAULT VALUES;

-- Counts all tasks, and puts the mark at the present end of the log. Writers are kept out meanwhile, so every event
-- that is there can be seen; those at or above the mark will be added later, so they are taken off here. A transaction
-- that is open but has not touched a task yet has an id at or above the mark, and so have its events to come.
CREATE FUNCTION recount_task_totals() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE task_states IN SHARE ROW EXCLUSIVE MODE;
    UPDATE task_totals t SET
        mark_xid = later.xmin, mark_seq = 0, scheduled = counted.scheduled - later.scheduled,
        new = counted.new - later.new, running = counted.running - later.running, done = counted.done - later.done,
        failed = counted.failed - later.failed, cancelled = counted.cancelled - later.cancelled
    FROM (
        SELECT count(*) FILTER (WHERE status = 'scheduled') AS scheduled,
               count(*) FILTER (WHERE status = 'new') AS new,
               count(*) FILTER (WHERE status = 'running') AS running,
               count(*) FILTER (WHERE status = 'done') AS done,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               count(*) FILTER (WHERE status = 'cancelled') AS cancelled
        FROM task_states
    ) counted, (
        SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, coalesce(sum(scheduled), 0) AS scheduled,
               coalesce(sum(new), 0) AS new, coalesce(sum(running), 0) AS running, coalesce(sum(done), 0) AS done,
               coalesce(sum(failed), 0) AS failed, coalesce(sum(cancelled), 0) AS cancelled
        FROM task_steps WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())
    ) later;
END
$$;

-- Events from before, that readers have not got to yet, are to tell what their tasks were as well.
UPDATE events e SET was = CASE WHEN e.type = 'created' THEN '' ELSE (
    SELECT p.status FROM events p WHERE p.task_id = e.task_id AND p.version = e.version - 1
) END
WHERE e.xid >= pg_snapshot_xmin(pg_current_snapshot());
SELECT recount_task_totals();

-- The ready task that has waited longest. A ready task has no lease anyway; the condition is there so that no claim can
-- go by this index: after a burst, while the planner takes ready tasks for few, it would read and sort all of them.
CREATE INDEX task_states_oldest ON task_states (ready_at) WHERE status = 'new' AND lease IS NULL;

-- UUID version 7 (RFC 9562, section 5.7) of a moment. rand_a is the fraction of the millisecond (section 6.2, method 3), and
-- rand_b begins with the task's number in its batch (modulo 16384): ids sort by the microsecond, and as a batch was given.
-- PostgreSQL has a function of its own only from 18 on.
CREATE OR REPLACE FUNCTION new_task_id(at timestamptz, ordinal integer) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        overlay(
            overlay(
                overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6)
                placing substring(int4send(
                    x'7000'::integer + (extract(microseconds FROM at)::bigint % 1000 * 4096 / 1000)::integer) FROM 3)
                FROM 7 FOR 2)
            placing substring(int4send(x'8000'::integer + (ordinal & 16383)) FROM 3) FROM 9 FOR 2),
        'hex')::uuid
$$;

-- As before, but an event that `task_totals` does not hold yet stays, with its partition. The parent is locked first, as
-- whoever writes an event does; from then on nothing comes to an old partition.
CREATE OR REPLACE FUNCTION rotate_events(width interval, ahead interval, keep interval) RETURNS boolean LANGUAGE plpgsql
    SET lock_timeout = '2s' AS $$
DECLARE
    now timestamptz := clock_timestamp();
    lower_end timestamptz;
    old record;
    last record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(499984167781) THEN
        RETURN false;
    END IF;
    SELECT max(upper_end) INTO lower_end FROM event_partitions;
    lower_end := greatest(lower_end, date_trunc('hour', now) + interval '1 hour');
    WHILE lower_end < now + ahead LOOP
        PERFORM add_event_partition(lower_end, lower_end + width);
        lower_end := lower_end + width;
    END LOOP;
    FOR old IN SELECT name FROM event_partitions WHERE upper_end <= now - keep ORDER BY upper_end LOOP
        LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('SELECT l.xid, l.seq, (l.xid, l.seq) > (t.mark_xid, t.mark_seq) AS is_needed
            FROM task_totals t, (SELECT xid, seq FROM %I ORDER BY xid DESC, seq DESC LIMIT 1) l', old.name) INTO last;
        CONTINUE WHEN last.is_needed;
        PERFORM raise_event_floor(last.xid, last.seq);
        EXECUTE format('DROP TABLE %I', old.name);
    END LOOP;
    WITH gone AS (
        DELETE FROM events_default
        WHERE at <= now - keep AND (xid, seq) <= (SELECT mark_xid, mark_seq FROM task_totals)
        RETURNING xid, seq
    )
    SELECT xid, seq INTO old FROM gone ORDER BY xid DESC, seq DESC LIMIT 1;
    IF FOUND THEN
        PERFORM raise_event_floor(old.xid, old.seq);
    END IF;
    RETURN true;
END
$$;
