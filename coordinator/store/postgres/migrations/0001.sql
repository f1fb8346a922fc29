-- A run's rows, in a PostgreSQL schema of its own. JSON is text here, byte for byte what was hashed and will be again.
CREATE TABLE schema_version (single boolean PRIMARY KEY DEFAULT true CHECK (single), number integer NOT NULL);

-- Who leads the run. The epoch is a key, so that a renewal does not wait for the writes that it fences.
CREATE TABLE lease (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    holder text NOT NULL,
    epoch bigint NOT NULL UNIQUE,
    sessions text NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO lease (holder, epoch, sessions, until) VALUES ('', 0, '', '-infinity');

-- The last write of each connection: after a lost connection it tells whether the commit happened.
CREATE TABLE receipts (
    slot bigint PRIMARY KEY,
    token bigint NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE FUNCTION begin_writing(expected_epoch bigint, own_slot bigint, own_token bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF expected_epoch IS NOT NULL THEN
        PERFORM 1 FROM lease WHERE epoch = expected_epoch FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another process leads the run' USING ERRCODE = 'FT001';
        END IF;
    END IF;
    UPDATE receipts SET token = own_token WHERE slot = own_slot;
    IF NOT FOUND THEN
        INSERT INTO receipts (slot, token) VALUES (own_slot, own_token);
    END IF;
END $$;

CREATE TABLE run (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text NOT NULL,
    plans text NOT NULL,
    evaluation text NOT NULL,
    created_at double precision NOT NULL,
    phase text NOT NULL DEFAULT 'created',
    reason text NOT NULL DEFAULT '',
    started_at double precision,
    first_number bigint NOT NULL DEFAULT 0
);

CREATE TABLE tiers (
    name text COLLATE "C" PRIMARY KEY,
    serial bigint NOT NULL,
    budget_bytes bigint NOT NULL,
    manifest text NOT NULL,
    signature text NOT NULL,
    program text NOT NULL,
    graph text
);

CREATE TABLE versions (
    version bigint PRIMARY KEY,
    parent bigint NOT NULL,
    weights text NOT NULL,
    metrics text NOT NULL,
    created_at double precision NOT NULL,
    kind text NOT NULL,
    private text NOT NULL,
    pruned boolean NOT NULL DEFAULT false
);

CREATE TABLE tokens (
    id text COLLATE "C" PRIMARY KEY,
    digest text NOT NULL UNIQUE,
    uses_left bigint,
    expires_at double precision,
    created_at double precision NOT NULL,
    revoked_at double precision,
    note text NOT NULL DEFAULT ''
);

CREATE TABLE devices (
    id text COLLATE "C" PRIMARY KEY,
    secret bytea NOT NULL,
    enrolled_at double precision NOT NULL,
    tier text COLLATE "C" NOT NULL DEFAULT '',
    bytes_up bigint NOT NULL DEFAULT 0,
    bytes_down bigint NOT NULL DEFAULT 0,
    updates bigint NOT NULL DEFAULT 0,
    report text NOT NULL DEFAULT '{}',
    alias text NOT NULL,
    token text NOT NULL DEFAULT '',
    last_seen double precision,
    failures bigint NOT NULL DEFAULT 0,
    revoked_at double precision,
    profile text NOT NULL DEFAULT '{}',
    model text COLLATE "C" NOT NULL DEFAULT '',
    version bigint,
    given_at double precision,
    aside_until double precision,
    aside_reason text NOT NULL DEFAULT '',
    aside_why text NOT NULL DEFAULT ''
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

CREATE TABLE assignments (
    number bigint PRIMARY KEY,
    device text COLLATE "C" NOT NULL REFERENCES devices (id),
    version bigint NOT NULL REFERENCES versions (version),
    tier text COLLATE "C" NOT NULL REFERENCES tiers (name),
    issued_at double precision NOT NULL,
    open boolean NOT NULL,
    deadline double precision
);
CREATE UNIQUE INDEX one_open_assignment ON assignments (device) WHERE open;
CREATE INDEX assignments_of_device ON assignments (device);
CREATE SEQUENCE assignment_numbers;

-- The devices, versions and tiers of updates are looked up where they are accepted; what was merged stays without them.
CREATE TABLE updates (
    arrival bigint PRIMARY KEY,
    assignment text COLLATE "C" NOT NULL UNIQUE,
    device text COLLATE "C",
    version bigint NOT NULL,
    tier text COLLATE "C" NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    report text NOT NULL,
    received_at double precision NOT NULL,
    object text,
    merged_into bigint,
    staleness bigint,
    weight double precision,
    discarded text
) WITH (fillfactor = 80);
CREATE INDEX waiting_updates ON updates (arrival) WHERE merged_into IS NULL AND discarded IS NULL;
CREATE INDEX updates_of_device ON updates (device);
CREATE SEQUENCE arrivals;

-- The bytes of small updates that wait. Rows come and go: they are vacuumed long before a fifth of them is dead.
CREATE TABLE contents (assignment text COLLATE "C" PRIMARY KEY, content bytea NOT NULL) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000
);
ALTER TABLE contents ALTER COLUMN content SET STORAGE EXTERNAL;

-- Every object that was put, written down before: what no row names is found here and deleted.
CREATE TABLE objects (key text COLLATE "C" PRIMARY KEY, put_at timestamptz NOT NULL);

-- The names of devices are not in it, only their aliases: when a device is withdrawn, so is what links the two.
CREATE TABLE audit (
    number bigint PRIMARY KEY,
    at double precision NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    details text NOT NULL,
    hash text NOT NULL
);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
