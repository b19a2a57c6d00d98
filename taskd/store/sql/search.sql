-- name: limits
-- For the transaction of one search: how long a statement may take, and that each is planned for the very words that are
-- asked for, since a plan that suits a rare word is bad for a frequent one.
SELECT set_config('statement_timeout', $1, true), set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: by_words
-- For the transaction, after the way by age took too long: leaves the planner the index of words, whose scans are bitmaps.
SELECT set_config('enable_indexscan', 'off', true)

-- name: parse
-- What a text asks for, in the words of the documents; `nodes` 0: nothing, it has no word to search for. `config` is what
-- the documents are made with, read each time: `taskd migrate` may change it while others run.
SELECT q::text AS query, numnode(q) AS nodes, querytree(q) NOT IN ('', 'T') AS indexable, m.search_config AS config
FROM meta m, websearch_to_tsquery(m.search_config::regconfig, search_text($1)) AS q

-- name: parse_prefix
-- The same, with the last word $3 also as the beginning of one. In $2 a word that no configuration changes stands in its
-- place; in the query that this gives, it gives way to the word's forms or its beginning. So whatever stands before it
-- keeps its meaning. If the last word is none for the parser, it is as if no prefix had been asked for.
SELECT q::text AS query, numnode(q) AS nodes, querytree(q) NOT IN ('', 'T') AS indexable, w.search_config AS config
FROM (
    SELECT plainto_tsquery(search_config::regconfig, search_text($3))
        || to_tsquery('pg_catalog.simple', quote_literal(search_text($3)) || ':*') AS last, search_config
    FROM meta
) w, LATERAL (
    SELECT CASE WHEN numnode(w.last) = 0 THEN websearch_to_tsquery(w.search_config::regconfig, search_text($1))
                ELSE replace(websearch_to_tsquery(w.search_config::regconfig, search_text($2))::text,
                             quote_literal($4), '( ' || w.last::text || ' )')::tsquery
           END AS q
) p

-- name: page
-- The best of a window: of the newest tasks that match, up to `most`, or of those between the bounds of a window that was
-- found before. Only they are ranked, and only what is shown has its words marked: a word that half of all tasks have costs
-- no more than a rarer one. `number` of them there are; `more`: there are older ones that match.
WITH found AS MATERIALIZED (
    SELECT f.*, row_number() OVER (ORDER BY f.created_at DESC, f.id DESC) AS n
    FROM (
        SELECT t.id, t.created_at, t.document
        FROM tasks t
        JOIN task_states s ON s.task_id = t.id                                                        --? statuses
        WHERE t.document @@ :query::tsquery
            AND t.owner = :owner                                                                      --? owner
            AND t.kind = :kind                                                                        --? kind
            AND s.status = ANY (:statuses::text[])                                                    --? statuses
            AND (t.created_at, t.id) < (:older_at, :older_id)                                         --? older
            AND (t.created_at, t.id) <= (:newest_at, :newest_id)                                      --? known
            AND (t.created_at, t.id) >= (:oldest_at, :oldest_id)                                      --? known
        ORDER BY t.created_at DESC, t.id DESC
        LIMIT :most + 1                                                                               --? new
    ) f
), bounds AS (
    SELECT count(*) AS number, false AS more FROM found                                               --? known
    SELECT least(count(*), :most) AS number, count(*) > :most AS more FROM found                      --? new
), newest AS (
    SELECT created_at, id FROM found WHERE n = 1
), oldest AS (
    SELECT created_at, id FROM found
    WHERE n <= :most                                                                                  --? new
    ORDER BY n DESC LIMIT 1
), best AS MATERIALIZED (
    SELECT r.id, r.rank
    FROM (
        SELECT id, ts_rank('{0.1, 0.2, 0.4, 1.0}', document, :query::tsquery) AS rank
        FROM found
        WHERE n <= :most                                                                              --? new
    ) r
    WHERE (r.rank, r.id) < (:rank::real, :id)                                                         --? behind
    ORDER BY r.rank DESC, r.id DESC
    LIMIT :limit + 1
)
SELECT r.*, best.rank,
    ts_headline(:config::text::regconfig, search_text(r.title), :query::tsquery,
                E'HighlightAll=true, StartSel=\x01, StopSel=\x02') AS title_marked,
    ts_headline(:config::text::regconfig, search_text(r.description), :query::tsquery,
                E'MaxFragments=2, MaxWords=20, MinWords=8, FragmentDelimiter=\x03, StartSel=\x01, StopSel=\x02')
        AS description_marked,
    bounds.number, bounds.more, newest.created_at AS newest_at, newest.id AS newest_id, oldest.created_at AS oldest_at,
    oldest.id AS oldest_id
FROM bounds LEFT JOIN newest ON true LEFT JOIN oldest ON true LEFT JOIN best ON true
LEFT JOIN task_rows r ON r.id = best.id
ORDER BY best.rank DESC, best.id DESC

-- name: config
-- The configuration that the documents are made with, the one of that name (null: there is none), and whether there are
-- tasks.
SELECT m.search_config AS present,
    (SELECT format('%I.%I', n.nspname, c.cfgname)
     FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
     WHERE CASE WHEN strpos($1, '.') > 0 THEN n.nspname = split_part($1, '.', 1) AND c.cfgname = split_part($1, '.', 2)
                ELSE c.cfgname = $1 AND pg_ts_config_is_visible(c.oid) END) AS wanted,
    EXISTS (SELECT FROM tasks) AS has_tasks
FROM meta m

-- name: lock_tasks
-- Before it is asked whether there are tasks.
LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE

-- name: set_config
-- Under the lock of migrations.
SELECT set_search_config($1::text::regconfig)
