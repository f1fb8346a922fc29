"""What is simulated: the scenario, its fleet, their samples and links."""
