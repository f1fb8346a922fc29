"""How good a version is: on the coordinator's own samples, and on the devices'."""
