-- name: find
-- Those of these digests that are good now.
SELECT digest, user_name, role, expires_at FROM tokens
WHERE digest = ANY ($1::bytea[]) AND (expires_at IS NULL OR expires_at > statement_timestamp())

-- name: create
-- The clock that says when it expires is the one that looks at it.
INSERT INTO tokens (digest, user_name, role, note, expires_at)
VALUES ($1, $2, $3, $4, statement_timestamp() + make_interval(secs => $5))
RETURNING id, digest, user_name, role, expires_at, note, created_at

-- name: list
-- All, the oldest first; of one user, if one is named.
SELECT id, digest, user_name, role, expires_at, note, created_at FROM tokens
WHERE $1::text IS NULL OR user_name = $1 ORDER BY id

-- name: revoke
-- By number, or all of a user.
DELETE FROM tokens WHERE id = ANY ($1::bigint[]) OR user_name = $2
RETURNING id, digest, user_name, role, expires_at, note, created_at

-- name: any
-- Whether there is one that can be used.
SELECT EXISTS (SELECT FROM tokens WHERE expires_at IS NULL OR expires_at > statement_timestamp())
