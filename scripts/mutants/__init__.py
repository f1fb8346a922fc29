"""
How much the tests notice: change one thing, run the unit tests of that room, and see whether any fails.

    python -m scripts.mutants --sample 20 --room coordinator/store --least 0.9

``changes`` says what is changed and what is not, ``running`` runs the tests, ``judging`` says what they notice.
Needs Linux or macOS (fork).
"""
