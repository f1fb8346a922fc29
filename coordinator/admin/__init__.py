"""What an operator does to a running coordinator: an HTTP API of its own, apart from the devices' port."""
