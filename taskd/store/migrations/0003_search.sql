-- Search: the document anew, and in the configuration that the settings name.

-- Which text search configuration the documents are made with, schema and all.
ALTER TABLE meta ADD COLUMN search_config text NOT NULL DEFAULT 'pg_catalog.russian';

-- A text as it is searched, character for character of its composed form: е for ё, and spaces for what separates words.
-- The default parser takes `<b and c>` for a tag and leaves out what is in there; and in a database with the C locale it
-- takes every character beyond ASCII for a letter, «», — and № too.
CREATE FUNCTION search_text(original text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(translate(normalize(original, NFC), 'ёЁ', 'еЕ'),
        '[<>\u0001-\u0003\u00A0-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u00D7\u00F7\u2000-\u214F\u2190-\u2BFF'
        '\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\uFE00-\uFE0F\uFE30-\uFE6F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40'
        '\uFF5B-\uFF65\U0001F000-\U0001FAFF]', ' ', 'g')
$$;

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
SELECT set_search_config('pg_catalog.russian');
