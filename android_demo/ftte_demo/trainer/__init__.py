"""The process that trains: the SDK's client, the samples, and a line to the screens."""
