"""Programs and measurements that were made before, kept under a hash of all that they depend on."""
