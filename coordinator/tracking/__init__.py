"""
A run's curves where people look for curves: files in the state directory, TensorBoard, MLflow, Weights & Biases.

Nothing here knows which device trained what: an erased device leaves nothing to erase in a tracker.
"""
