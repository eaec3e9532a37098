"""Scores: the rubric, the LLM judge, the cue rater; and perplexity."""
