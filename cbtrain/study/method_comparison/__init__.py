"""Compare methods of fine-tuning on one task, with equal tokens and as many trained numbers as can be."""
