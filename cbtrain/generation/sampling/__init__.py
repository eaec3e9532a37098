"""Draw the next tokens of a batch: each from its own logits, settings and noise."""
