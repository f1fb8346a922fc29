"""The way to the coordinator: sockets, simulated links, and when to try again."""
