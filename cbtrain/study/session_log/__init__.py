"""What was asked and answered in the sessions of a run, by its journal and its requests."""
