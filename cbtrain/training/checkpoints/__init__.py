"""Where a training stage stands, on disk."""
