CREATE TABLE run (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    name TEXT NOT NULL,
    plans TEXT NOT NULL,
    evaluation TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE tiers (
    name TEXT PRIMARY KEY,
    serial INTEGER NOT NULL,
    budget_bytes INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    signature TEXT NOT NULL,
    program TEXT NOT NULL
);
CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    enrolled_at REAL NOT NULL,
    tier TEXT NOT NULL DEFAULT '',
    bytes_up INTEGER NOT NULL DEFAULT 0,
    bytes_down INTEGER NOT NULL DEFAULT 0,
    updates INTEGER NOT NULL DEFAULT 0,
    report TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE assignments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL REFERENCES devices (id),
    version INTEGER NOT NULL REFERENCES versions (version),
    tier TEXT NOT NULL REFERENCES tiers (name),
    issued_at REAL NOT NULL,
    open INTEGER NOT NULL
);
CREATE UNIQUE INDEX one_open_assignment ON assignments (device) WHERE open;
CREATE TABLE versions (
    version INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    weights TEXT NOT NULL,
    metrics TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE updates (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    assignment TEXT NOT NULL UNIQUE,
    device TEXT NOT NULL REFERENCES devices (id),
    version INTEGER NOT NULL REFERENCES versions (version),
    tier TEXT NOT NULL REFERENCES tiers (name),
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    report TEXT NOT NULL,
    received_at REAL NOT NULL,
    merged_into INTEGER REFERENCES versions (version),
    staleness INTEGER,
    weight REAL
);
CREATE INDEX waiting_updates ON updates (arrival) WHERE merged_into IS NULL;
