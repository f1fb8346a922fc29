"""Coverage-guided fuzzing of everything that parses what a peer sent; ``docs/reference/fuzzing.md`` tells how."""
