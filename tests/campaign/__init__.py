"""Whole federations under faults, each made from one seed and repeatable to the last bit."""
