"""Attention over packed documents and over the key-value cache, and the back-ends that serve it."""
