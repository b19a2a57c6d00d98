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
