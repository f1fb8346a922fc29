"""Large things by their key: in a folder, or in S3 and what is compatible with it."""
