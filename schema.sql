-- What the migrations in taskd/store/migrations add up to; a test holds the two against each other. To read, or to
-- compare with a database: `taskd migrate` does not use it.

CREATE TABLE schema_migrations (
    name text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The core: tasks, the state of their queue, the event log, leases, idempotency keys.
--
-- A task is two rows. `tasks` holds what a user wrote and hardly ever changes, with its search document; a claim or a
-- report of progress must not rewrite a row that a GIN index points to. `task_states` holds what the queue changes.
-- Both are written and deleted together, in one transaction, with the event in the log; there is no foreign key
-- because it would lock the `tasks` row at each insert and check what the statements in store/sql do anyway.

CREATE TABLE meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    uuid uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Whose transaction ids `task_states.event_xid` holds; another cluster's would never come up here (see migrate.py).
    system_identifier bigint NOT NULL,
    -- The greatest key of an event that was dropped: a reader that stands before it may have missed something.
    floor_xid xid8 NOT NULL DEFAULT '0',
    floor_seq bigint NOT NULL DEFAULT 0,
    -- Which text search configuration the documents are made with, schema and all.
    search_config text NOT NULL DEFAULT 'pg_catalog.russian'
);
INSERT INTO meta (system_identifier) SELECT system_identifier FROM pg_control_system();

-- A text as it is searched, character for character of its composed form: е for ё, and spaces for what separates words.
-- The default parser takes `<b and c>` for a tag and leaves out what is in there; and in a database with the C locale it
-- takes every character beyond ASCII for a letter, «», — and № too.
CREATE FUNCTION search_text(original text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(translate(normalize(original, NFC), 'ёЁ', 'еЕ'),
        '[<>\u0001-\u0003\u00A0-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u00D7\u00F7\u2000-\u214F\u2190-\u2BFF'
        '\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\uFE00-\uFE0F\uFE30-\uFE6F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40'
        '\uFF5B-\uFF65\U0001F000-\U0001FAFF]', ' ', 'g')
$$;

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    -- json and not jsonb: the text goes out as it came in, and nothing here looks inside.
    payload json NOT NULL,
    created_at timestamptz NOT NULL,
    document tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('pg_catalog.russian'::regconfig, search_text(title)), 'A')
        || setweight(to_tsvector('pg_catalog.russian'::regconfig, search_text(description)), 'B')
    ) STORED
);
CREATE INDEX tasks_created ON tasks (created_at, id);
CREATE INDEX tasks_owner ON tasks (owner, created_at, id);
CREATE INDEX tasks_owner_kind ON tasks (owner, kind, created_at, id);
CREATE INDEX tasks_document ON tasks USING gin (document);

CREATE TABLE task_states (
    task_id uuid PRIMARY KEY,
    owner text NOT NULL,
    kind text NOT NULL,
    created_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('scheduled', 'new', 'running', 'done', 'failed', 'cancelled')),
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    timeout_seconds double precision NOT NULL,
    progress double precision,
    progress_note text,
    result json,
    error_type text,
    error_message text,
    error_attempt integer,
    error_at timestamptz,
    version bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    -- Which process start runs it; set exactly while it runs.
    lease uuid,
    -- What the last change is called in the log, and the transaction id it stands under there.
    event text NOT NULL,
    event_xid xid8 NOT NULL,
    -- The status before the last change, '' of one that was created.
    was text NOT NULL DEFAULT '',
    -- Since when it is ready; of no meaning while it is not.
    ready_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'running') = (lease IS NOT NULL)),
    CHECK ((status IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 70);
-- All ascending, so that a claim can begin behind a place in it, by a comparison of rows.
CREATE INDEX task_states_ready ON task_states (kind, (-priority), task_id) WHERE status = 'new';
CREATE INDEX task_states_due ON task_states (run_at) WHERE status = 'scheduled';
-- The ready task that has waited longest. A ready task has no lease anyway; the condition is there so that no claim can
-- go by this index: after a burst, while the planner takes ready tasks for few, it would read and sort all of them.
CREATE INDEX task_states_oldest ON task_states (ready_at) WHERE status = 'new' AND lease IS NULL;
CREATE INDEX task_states_held ON task_states (lease) WHERE status = 'running';
-- Each process looks every two seconds for those of its running tasks that are to be stopped, few of thousands.
CREATE INDEX task_states_stopping ON task_states (lease)
    WHERE status = 'running' AND cancel_requested_at IS NOT NULL;
CREATE INDEX task_states_owner ON task_states (owner, status, created_at, task_id);
CREATE INDEX task_states_finished ON task_states (finished_at) WHERE finished_at IS NOT NULL;

-- A task as the program knows it; the order of columns is the order of the fields of `domain.model.Task`.
CREATE VIEW task_rows AS
SELECT t.id, t.owner, t.kind, t.title, t.description, t.payload, s.status, s.priority, s.run_at, s.attempt,
       s.max_attempts, s.timeout_seconds, s.progress, s.progress_note, s.result, s.error_type, s.error_message,
       s.error_attempt, s.error_at, s.version, t.created_at, s.updated_at, s.started_at, s.finished_at,
       s.cancel_requested_at
FROM tasks t JOIN task_states s ON s.task_id = t.id;

-- The log. Partitioned by time, so that old events go by dropping a table. title, description and payload are null as
-- long as they are what `tasks` holds; whatever changes or deletes the `tasks` row first copies them here.
CREATE TABLE events (
    xid xid8 NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    type text NOT NULL,
    task_id uuid NOT NULL,
    owner text NOT NULL,
    kind text NOT NULL,
    title text,
    description text,
    payload json,
    status text NOT NULL,
    priority smallint NOT NULL,
    run_at timestamptz NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    timeout_seconds double precision NOT NULL,
    progress double precision,
    progress_note text,
    result json,
    error_type text,
    error_message text,
    error_attempt integer,
    error_at timestamptz,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    -- The status before; '' of a task that was created, null where it is not known.
    was text
) PARTITION BY RANGE (at);
CREATE INDEX events_key ON events (xid, seq);
CREATE INDEX events_task ON events (task_id);

-- Takes what no other partition does, so that a late `rotate_events` never makes a change fail.
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- No cache: numbers must come in the order in which they are drawn, whoever draws them.
CREATE SEQUENCE event_seq CACHE 1;

-- An event with its task as the event left it: key, type, time, the columns of `task_rows`, and the status before.
CREATE VIEW event_rows AS
SELECT e.xid, e.seq, e.type, e.at,
       e.task_id AS id, e.owner, e.kind, coalesce(e.title, t.title) AS title,
       coalesce(e.description, t.description) AS description, coalesce(e.payload, t.payload) AS payload,
       e.status, e.priority, e.run_at, e.attempt, e.max_attempts, e.timeout_seconds, e.progress, e.progress_note,
       e.result, e.error_type, e.error_message, e.error_attempt, e.error_at, e.version, e.created_at, e.updated_at,
       e.started_at, e.finished_at, e.cancel_requested_at, e.was
FROM events e LEFT JOIN tasks t ON t.id = e.task_id AND e.title IS NULL;

-- Writes one event for each row that a statement inserted or updated. A trigger, so that no change can miss the log; for
-- each statement, so that a batch costs one insert. Its row is locked by now, so `seq` grows along a task's versions.
-- The key's xid is never below that of the task's event before: a batch has its xid from its first row on and may get
-- to this row after a younger transaction changed it.
CREATE FUNCTION log_task_changes() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER log_insert AFTER INSERT ON task_states REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_task_changes();
CREATE TRIGGER log_update AFTER UPDATE ON task_states REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_task_changes();

-- The event of a deletion carries the content itself: the `tasks` row goes right after, in the same transaction.
CREATE FUNCTION log_task_deletions() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER log_delete AFTER DELETE ON task_states REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION log_task_deletions();

-- Every statement of this program sets `was`; for a change by hand, or by a process of the release before, this does.
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

-- UUID version 7 (RFC 9562, section 5.7) of a moment. rand_a is the fraction of the millisecond (section 6.2, method 3), and
-- rand_b begins with the task's number in its batch (modulo 16384): ids sort by the microsecond, and as a batch was given.
-- PostgreSQL has a function of its own only from 18 on.
CREATE FUNCTION new_task_id(at timestamptz, ordinal integer) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
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

-- Eight bytes that name this log: another after a restore to another cluster, another timeline or another database.
CREATE FUNCTION log_epoch() RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT substring(sha256(convert_to(concat_ws('/',
        (SELECT system_identifier FROM pg_control_system()),
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        (SELECT uuid FROM meta)), 'UTF8')) FROM 1 FOR 8)
$$;

-- Keeps partitions of the log ready for the next `ahead`, each `width` long, and drops what is older than `keep`,
-- remembering the greatest key that went. A partition begins where the last one ends, or at the next full hour: what
-- comes before that is in the default partition, and a new one must not claim what is there. Waits for locks 2 s at the
-- most, because whoever comes after it waits as long; returns whether no other process was at it. An event that
-- `task_totals` does not hold yet stays, with its partition. The parent is locked first, as whoever writes an event does;
-- from then on nothing comes to an old partition.
CREATE FUNCTION rotate_events(width interval, ahead interval, keep interval) RETURNS boolean LANGUAGE plpgsql
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

CREATE FUNCTION add_event_partition(lower_end timestamptz, upper_end timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'events_' || to_char(lower_end AT TIME ZONE 'UTC', 'YYYYMMDD_HH24MI');
BEGIN
    -- Attached and not created in place: that locks out only who needs the default partition.
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS)', name);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, lower_end, upper_end);
END
$$;

CREATE FUNCTION raise_event_floor(xid xid8, seq bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE meta SET floor_xid = $1, floor_seq = $2 WHERE (floor_xid, floor_seq) < ($1, $2)
$$;

-- The partitions of the log but the default one, as the catalog has them.
CREATE VIEW event_partitions AS
SELECT c.relname::text AS name,
       substring(pg_get_expr(c.relpartbound, c.oid) FROM $$TO \('([^']+)'\)$$)::timestamptz AS upper_end
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'events'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT';

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

-- One row for each process start. `lock_key` is an advisory lock that the process's listener connection holds: the
-- kernel closes that connection when the process dies, so its peers need not wait for the lease to expire.
CREATE TABLE leases (
    lease uuid PRIMARY KEY,
    role text NOT NULL,
    name text NOT NULL,
    lock_key bigint NOT NULL,
    started_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE idempotency (
    owner text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    -- The first answer: a JSON list of tasks. Null only inside the transaction that makes it.
    answer text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Makes all documents anew: rewrites the table, which is locked meanwhile. A column of another expression, because
-- PostgreSQL can change that of a generated column only from 17 on.
CREATE FUNCTION set_search_config(config regconfig) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.cfgname) INTO name
    FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace WHERE c.oid = config;
    ALTER TABLE tasks DROP COLUMN document;
    EXECUTE format($sql$
        ALTER TABLE tasks ADD COLUMN document tsvector NOT NULL GENERATED ALWAYS AS (
            setweight(to_tsvector(%1$L::regconfig, search_text(title)), 'A')
            || setweight(to_tsvector(%1$L::regconfig, search_text(description)), 'B')
        ) STORED
    $sql$, name);
    CREATE INDEX tasks_document ON tasks USING gin (document);
    -- Searches are planned by how frequent their words are, and the new column has no statistics until somebody looks.
    IF EXISTS (SELECT FROM tasks) THEN
        ANALYZE tasks (document);
    END IF;
    UPDATE meta SET search_config = name;
END
$$;

-- Who may call. Of a token only its SHA-256 is here: who reads this table can call nothing by it. A token that is
-- revoked is deleted.
CREATE TABLE tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    user_name text NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'worker', 'metrics', 'admin')),
    note text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    expires_at timestamptz
);
CREATE INDEX tokens_user ON tokens (user_name);
