"""What training will need, before anything is loaded: peak memory, and time for an epoch."""
