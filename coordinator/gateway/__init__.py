"""A process that holds devices' connections, and decides nothing: the conductor does."""
