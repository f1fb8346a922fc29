"""FTTE's coordinator: devices, versions, buffer, merge."""
