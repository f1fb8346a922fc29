"""FTTE's SDK: what runs on a device. Needs numpy and websockets, and no torch."""

__version__ = "0.1.0"
