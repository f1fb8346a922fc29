"""The runs that one coordinator serves, by name."""
