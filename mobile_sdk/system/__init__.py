"""
What differs between operating systems, behind functions that are the same on all of them.

Nothing outside this package asks which system it runs on.
"""
