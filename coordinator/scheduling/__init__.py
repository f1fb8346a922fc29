"""Which device trains next, and how often."""
