"""The conductor's side of its gateways: what they ask, answered by the run's coordinator."""
