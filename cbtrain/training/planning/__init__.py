"""Predict peak memory and time of training before anything is loaded."""
