"""How simulated devices train: processes, engines, and the time that steps take."""
