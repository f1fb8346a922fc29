"""The wire protocol, written once for both sides; see ``docs/reference/protocol.md``."""
