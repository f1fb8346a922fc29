"""What would go wrong, found before a minute of planning: for ``ftte doctor``, and before ``ftte serve`` begins."""
