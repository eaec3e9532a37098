"""Metrics of a run: a file, a live display, TensorBoard and Weights & Biases."""
