-- Times are microseconds since the epoch. `id` orders what was made at the same time.
-- Labels, annotations and other open-ended parts are JSON texts.

CREATE TABLE organization_quotas (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL COLLATE NOCASE UNIQUE,
    limits      TEXT NOT NULL,
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE organizations (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL COLLATE NOCASE UNIQUE,
    suspended   INTEGER NOT NULL DEFAULT 0,
    quota_guid  TEXT NOT NULL REFERENCES organization_quotas (guid),
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE spaces (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL COLLATE NOCASE,
    org_guid    TEXT NOT NULL REFERENCES organizations (guid),
    allow_ssh   INTEGER NOT NULL DEFAULT 1,
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    UNIQUE (org_guid, name)
) STRICT;

-- Names live in UAA.
CREATE TABLE users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE roles (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    guid       TEXT NOT NULL UNIQUE,
    type       TEXT NOT NULL,
    user_guid  TEXT NOT NULL REFERENCES users (guid) ON DELETE CASCADE,
    org_guid   TEXT REFERENCES organizations (guid) ON DELETE CASCADE,
    space_guid TEXT REFERENCES spaces (guid) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((org_guid IS NULL) <> (space_guid IS NULL))
) STRICT;
CREATE UNIQUE INDEX roles_org ON roles (user_guid, org_guid, type) WHERE org_guid IS NOT NULL;
CREATE UNIQUE INDEX roles_space ON roles (user_guid, space_guid, type) WHERE space_guid IS NOT NULL;
CREATE INDEX roles_of_org ON roles (org_guid);
CREATE INDEX roles_of_space ON roles (space_guid);

CREATE TABLE stacks (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    guid         TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL UNIQUE,
    description  TEXT NOT NULL DEFAULT '',
    build_rootfs TEXT NOT NULL,
    run_rootfs   TEXT NOT NULL,
    is_default   INTEGER NOT NULL DEFAULT 0,
    labels       TEXT NOT NULL DEFAULT '{}',
    annotations  TEXT NOT NULL DEFAULT '{}',
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE buildpacks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    stack       TEXT,
    position    INTEGER NOT NULL,
    enabled     INTEGER NOT NULL DEFAULT 1,
    locked      INTEGER NOT NULL DEFAULT 0,
    filename    TEXT,
    sha256      TEXT,
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX buildpacks_name ON buildpacks (name, coalesce(stack, ''));

CREATE TABLE domains (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL UNIQUE,
    internal    INTEGER NOT NULL DEFAULT 0,
    org_guid    TEXT REFERENCES organizations (guid),
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE domain_shares (
    domain_guid TEXT NOT NULL REFERENCES domains (guid) ON DELETE CASCADE,
    org_guid    TEXT NOT NULL REFERENCES organizations (guid) ON DELETE CASCADE,
    PRIMARY KEY (domain_guid, org_guid)
) STRICT, WITHOUT ROWID;

CREATE TABLE apps (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    guid         TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL COLLATE NOCASE,
    space_guid   TEXT NOT NULL REFERENCES spaces (guid),
    state        TEXT NOT NULL DEFAULT 'STOPPED',
    lifecycle    TEXT NOT NULL DEFAULT 'buildpack',
    buildpacks   TEXT NOT NULL DEFAULT '[]',
    stack        TEXT,
    env          TEXT NOT NULL DEFAULT '{}',
    droplet_guid TEXT,
    features     TEXT NOT NULL DEFAULT '{}',
    labels       TEXT NOT NULL DEFAULT '{}',
    annotations  TEXT NOT NULL DEFAULT '{}',
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (space_guid, name)
) STRICT;

CREATE TABLE processes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    guid         TEXT NOT NULL UNIQUE,
    app_guid     TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    type         TEXT NOT NULL,
    command      TEXT,
    user         TEXT,
    instances    INTEGER NOT NULL,
    memory_mb    INTEGER NOT NULL,
    disk_mb      INTEGER NOT NULL,
    log_rate     INTEGER NOT NULL DEFAULT -1,
    version      TEXT NOT NULL,
    health       TEXT NOT NULL,
    readiness    TEXT NOT NULL,
    labels       TEXT NOT NULL DEFAULT '{}',
    annotations  TEXT NOT NULL DEFAULT '{}',
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (app_guid, type)
) STRICT;

CREATE TABLE sidecars (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    guid          TEXT NOT NULL UNIQUE,
    app_guid      TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    command       TEXT NOT NULL,
    process_types TEXT NOT NULL,
    memory_mb     INTEGER,
    origin        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    UNIQUE (app_guid, name)
) STRICT;

CREATE TABLE packages (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    app_guid    TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    type        TEXT NOT NULL,
    state       TEXT NOT NULL,
    error       TEXT,
    image       TEXT,
    sha1        TEXT,
    sha256      TEXT,
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX packages_app ON packages (app_guid);

CREATE TABLE droplets (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    guid               TEXT NOT NULL UNIQUE,
    app_guid           TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    package_guid       TEXT,
    state              TEXT NOT NULL,
    error              TEXT,
    lifecycle          TEXT NOT NULL,
    stack              TEXT,
    image              TEXT,
    buildpacks         TEXT NOT NULL DEFAULT '[]',
    execution_metadata TEXT NOT NULL DEFAULT '',
    process_types      TEXT NOT NULL DEFAULT '{}',
    sidecars           TEXT NOT NULL DEFAULT '[]',
    sha256             TEXT,
    labels             TEXT NOT NULL DEFAULT '{}',
    annotations        TEXT NOT NULL DEFAULT '{}',
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL
) STRICT;
CREATE INDEX droplets_app ON droplets (app_guid);
CREATE INDEX droplets_package ON droplets (package_guid);

CREATE TABLE builds (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    guid         TEXT NOT NULL UNIQUE,
    app_guid     TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    package_guid TEXT NOT NULL,
    droplet_guid TEXT NOT NULL,
    state        TEXT NOT NULL,
    error        TEXT,
    lifecycle    TEXT NOT NULL,
    buildpacks   TEXT NOT NULL DEFAULT '[]',
    stack        TEXT,
    memory_mb    INTEGER NOT NULL,
    disk_mb      INTEGER NOT NULL,
    log_rate     INTEGER NOT NULL,
    creator      TEXT NOT NULL,
    labels       TEXT NOT NULL DEFAULT '{}',
    annotations  TEXT NOT NULL DEFAULT '{}',
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX builds_staging ON builds (app_guid) WHERE state = 'STAGING';
CREATE INDEX builds_app ON builds (app_guid);

CREATE TABLE routes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    space_guid  TEXT NOT NULL REFERENCES spaces (guid),
    domain_guid TEXT NOT NULL REFERENCES domains (guid),
    host        TEXT NOT NULL COLLATE NOCASE,
    path        TEXT NOT NULL COLLATE NOCASE,
    options     TEXT NOT NULL DEFAULT '{}',
    labels      TEXT NOT NULL DEFAULT '{}',
    annotations TEXT NOT NULL DEFAULT '{}',
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    UNIQUE (domain_guid, host, path)
) STRICT;

CREATE TABLE destinations (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    guid         TEXT NOT NULL UNIQUE,
    route_guid   TEXT NOT NULL REFERENCES routes (guid) ON DELETE CASCADE,
    app_guid     TEXT NOT NULL REFERENCES apps (guid) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    port         INTEGER NOT NULL DEFAULT 8080,
    protocol     TEXT NOT NULL DEFAULT 'http1',
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (route_guid, app_guid, process_type, port)
) STRICT;
CREATE INDEX destinations_app ON destinations (app_guid);

CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    guid          TEXT NOT NULL UNIQUE,
    operation     TEXT NOT NULL,
    work          TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_guid TEXT NOT NULL,
    state         TEXT NOT NULL,
    errors        TEXT NOT NULL DEFAULT '[]',
    warnings      TEXT NOT NULL DEFAULT '[]',
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (state) WHERE state = 'PROCESSING';

CREATE TABLE audit_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    type        TEXT NOT NULL,
    actor_guid  TEXT NOT NULL,
    actor_type  TEXT NOT NULL,
    actor_name  TEXT NOT NULL,
    target_guid TEXT NOT NULL,
    target_type TEXT NOT NULL,
    target_name TEXT NOT NULL,
    data        TEXT NOT NULL,
    space_guid  TEXT,
    org_guid    TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_events_target ON audit_events (target_guid);
CREATE INDEX audit_events_created ON audit_events (created_at);

-- Only what differs from the defaults.
CREATE TABLE feature_flags (
    name       TEXT PRIMARY KEY,
    enabled    INTEGER NOT NULL,
    message    TEXT,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE environment_groups (
    name       TEXT PRIMARY KEY,
    vars       TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE security_groups (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    guid        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL UNIQUE,
    rules       TEXT NOT NULL,
    running     INTEGER NOT NULL DEFAULT 0,
    staging     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
