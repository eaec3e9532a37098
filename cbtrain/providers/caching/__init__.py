"""Answers on disk, shared by runs."""
