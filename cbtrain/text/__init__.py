"""Text of any origin: words by script, models' thinking, JSON objects in prose."""
