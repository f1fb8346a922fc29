-- Where the leader waits for gateways.
ALTER TABLE lease ADD COLUMN address text NOT NULL DEFAULT '';
