"""Evaluation: simulated patients, therapists, dialogue, raters, statistics, report."""
