"""What a program takes on a device: measured in a fresh process, and predicted."""
