-- Devices of which nothing is merged for a while, and why.
ALTER TABLE devices ADD COLUMN aside_until REAL;
ALTER TABLE devices ADD COLUMN aside_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN aside_why TEXT NOT NULL DEFAULT '';
