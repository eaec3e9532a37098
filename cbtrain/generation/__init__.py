"""Answers from local weights: many conversations in one batch, and a server for them."""
