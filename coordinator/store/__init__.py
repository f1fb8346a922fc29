"""What survives a restart and a power cut."""
