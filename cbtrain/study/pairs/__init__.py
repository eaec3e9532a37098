"""Pairs of answers made of what there is: scored evaluations, transcripts, answers that were found unsafe."""
