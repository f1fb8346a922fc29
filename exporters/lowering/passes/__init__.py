"""Changes of the whole graph, beside the rewrites of single operators."""
