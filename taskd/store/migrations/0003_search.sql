-- Search: the document anew, and in the configuration that the settings name.
--
-- The default parser takes `<b and c>` for a tag and would not index what is in there, so the document is made of texts
-- without angle brackets; and ё is е, as most people write it.

-- Which text search configuration the documents are made with, schema and all.
ALTER TABLE meta ADD COLUMN search_config text NOT NULL DEFAULT 'pg_catalog.russian';

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
            setweight(to_tsvector(%1$L::regconfig, translate(title, 'ёЁ<>', 'еЕ  ')), 'A')
            || setweight(to_tsvector(%1$L::regconfig, translate(description, 'ёЁ<>', 'еЕ  ')), 'B')
        ) STORED
    $sql$, name);
    CREATE INDEX tasks_document ON tasks USING gin (document);
    UPDATE meta SET search_config = name;
END
$$;
SELECT set_search_config('pg_catalog.russian');
