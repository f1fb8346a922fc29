"""``ftte export`` and ``ftte plan``."""
