"""From an upload's bytes to an update in the buffer: kept, checked, written down."""
