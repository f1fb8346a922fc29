"""What a run shows of itself: the live display, the summary, the classes of devices."""
