"""Engines run a program's methods on numpy arrays."""
