"""Local training: settings, optimisers, checkpoints, evaluation."""
