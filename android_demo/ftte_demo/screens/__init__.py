"""One file per screen, and its layout beside it."""
