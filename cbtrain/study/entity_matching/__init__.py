"""Train and evaluate a model on the task entity-matching."""
