"""When a device takes part, and what stops it in the middle."""
