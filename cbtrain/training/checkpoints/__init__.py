"""Checkpoints of a training stage."""
