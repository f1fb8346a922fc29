"""What replaces each operator, one file per family of operators."""
