"""The parts of ``benchmarks/subsets/search.py``."""
