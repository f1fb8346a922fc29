"""The loop of one run: from a full buffer to the next version."""
