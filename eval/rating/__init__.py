"""Scores: the rubric, the LLM judge, the cue rater; perplexity beside them."""
