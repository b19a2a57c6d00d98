-- name: lock
-- One migration at a time in this database. The number is "taskd" in ASCII.
SELECT pg_advisory_xact_lock(499984167780)

-- name: known
-- Whether any migration was ever applied.
SELECT to_regclass('schema_migrations')::text

-- name: make_known
-- Under the lock: two CREATE TABLE IF NOT EXISTS at once may fail on the catalog's unique index.
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: is_applied
-- Asked again under the lock.
SELECT EXISTS (SELECT FROM schema_migrations WHERE name = $1)

-- name: applied
-- What this database has.
SELECT name FROM schema_migrations ORDER BY name

-- name: note
-- In the transaction of the migration itself.
INSERT INTO schema_migrations (name) VALUES ($1)

-- name: is_at_home
-- Whether the transaction ids in this database are of this cluster.
SELECT m.system_identifier = c.system_identifier FROM meta m, pg_control_system() c

-- name: adopt
-- The triggers rest meanwhile: nothing has happened to any task. Runs as a script, without arguments.
ALTER TABLE task_states DISABLE TRIGGER USER;
UPDATE task_states SET event_xid = '0';
ALTER TABLE task_states ENABLE TRIGGER USER;
TRUNCATE events;
DELETE FROM leases;
SELECT recount_task_totals();
UPDATE meta SET uuid = gen_random_uuid(), floor_xid = '0', floor_seq = 0,
    system_identifier = (SELECT system_identifier FROM pg_control_system());
