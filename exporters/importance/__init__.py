"""Selectors: which parameters to train first. One file per selector, each giving nested subsets."""
