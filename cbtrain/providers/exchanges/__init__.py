"""Every request of a run and what came back, word for word: ``requests.jsonl`` in its folder."""
