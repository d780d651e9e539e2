-- Times are seconds since the epoch.
CREATE TABLE users (
    id                  TEXT PRIMARY KEY,
    user_name           TEXT NOT NULL COLLATE NOCASE,
    origin              TEXT NOT NULL,
    password_hash       TEXT NOT NULL,
    email               TEXT NOT NULL,
    given_name          TEXT NOT NULL DEFAULT '',
    family_name         TEXT NOT NULL DEFAULT '',
    version             INTEGER NOT NULL DEFAULT 0,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    password_changed_at INTEGER NOT NULL,
    failed_logins       INTEGER NOT NULL DEFAULT 0,
    last_failure_at     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user_name, origin)
) STRICT;

CREATE TABLE memberships (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    group_name TEXT NOT NULL,
    PRIMARY KEY (user_id, group_name)
) STRICT, WITHOUT ROWID;
