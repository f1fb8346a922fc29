"""
From a full buffer to the next weights.

Outliers out, norms clipped, staleness weights, one merge rule, a server optimiser. All of it is arithmetic on
the *trained vector*: the elements of the weight vector that some tier trains, and no others.
"""
