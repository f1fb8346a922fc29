"""One visit to the coordinator: assignments, downloads, training, uploads."""
