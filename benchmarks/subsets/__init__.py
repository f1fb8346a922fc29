"""The parts of ``benchmarks/subset_search.py``."""
