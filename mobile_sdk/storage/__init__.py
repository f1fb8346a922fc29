"""What a device keeps across restarts."""
