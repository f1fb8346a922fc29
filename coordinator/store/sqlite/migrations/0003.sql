-- The interpreter's file of a program; programs made before have none.
ALTER TABLE tiers ADD COLUMN graph TEXT;
