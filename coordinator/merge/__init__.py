"""How a buffer of updates becomes a version: staleness weights, then the merge rule."""
