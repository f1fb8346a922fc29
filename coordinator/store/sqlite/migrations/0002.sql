-- Life cycle, registry, audit log, rollbacks, withdrawal; updates move from files into segments.
ALTER TABLE run ADD COLUMN phase TEXT NOT NULL DEFAULT 'created';
ALTER TABLE run ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN started_at REAL;
ALTER TABLE run ADD COLUMN first_number INTEGER NOT NULL DEFAULT 0;

ALTER TABLE devices ADD COLUMN alias TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN token TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN last_seen REAL;
ALTER TABLE devices ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN revoked_at REAL;
ALTER TABLE devices ADD COLUMN profile TEXT NOT NULL DEFAULT '{}';
ALTER TABLE devices ADD COLUMN version INTEGER;
ALTER TABLE devices ADD COLUMN given_at REAL;
UPDATE devices SET alias = lower(hex(randomblob(8)));

ALTER TABLE assignments ADD COLUMN deadline REAL;
CREATE INDEX assignments_of_device ON assignments (device);

ALTER TABLE versions ADD COLUMN kind TEXT NOT NULL DEFAULT 'merge';
ALTER TABLE versions ADD COLUMN private TEXT NOT NULL DEFAULT '{}';
ALTER TABLE versions ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
UPDATE versions SET kind = 'initial' WHERE parent < 0;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    uses_left INTEGER,
    expires_at REAL,
    created_at REAL NOT NULL,
    revoked_at REAL,
    note TEXT NOT NULL DEFAULT ''
);

-- The names of devices are not in it, only their aliases: when a device is withdrawn, so is what links the two.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE updates_2 (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    assignment TEXT NOT NULL UNIQUE,
    device TEXT REFERENCES devices (id),
    version INTEGER NOT NULL REFERENCES versions (version),
    tier TEXT NOT NULL REFERENCES tiers (name),
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    report TEXT NOT NULL,
    received_at REAL NOT NULL,
    segment INTEGER,
    start INTEGER,
    merged_into INTEGER REFERENCES versions (version),
    staleness INTEGER,
    weight REAL,
    discarded TEXT
);
INSERT INTO updates_2 (arrival, assignment, device, version, tier, sha256, size, report, received_at, merged_into,
                       staleness, weight)
    SELECT arrival, assignment, device, version, tier, sha256, size, report, received_at, merged_into, staleness, weight
    FROM updates;
DROP TABLE updates;
ALTER TABLE updates_2 RENAME TO updates;
CREATE INDEX waiting_updates ON updates (arrival) WHERE merged_into IS NULL AND discarded IS NULL;
CREATE INDEX updates_of_device ON updates (device);
