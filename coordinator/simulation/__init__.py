"""Hundreds of devices in one process: the product's own coordinator and clients under a virtual clock."""
