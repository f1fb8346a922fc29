"""The weights over time: their history, the differences between them, how long they are kept."""
