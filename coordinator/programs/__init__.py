"""The programs of a run: made, signed, kept, and chosen for a device."""
