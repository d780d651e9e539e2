-- Every record is the protobuf message that the API speaks, so that what a newer peer adds is kept.
-- The columns beside it are only keys; everything else is read out of the message at start.
CREATE TABLE domains (
    domain TEXT PRIMARY KEY,
    -- Nanoseconds since the epoch; the largest number is never.
    expire_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE desired_lrps (
    process_guid TEXT PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

CREATE TABLE actual_lrps (
    process_guid TEXT NOT NULL,
    instance_index INTEGER NOT NULL,
    presence INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (process_guid, instance_index, presence)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    guid TEXT PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;
