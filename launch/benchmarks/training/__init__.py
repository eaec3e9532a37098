"""Parts of ``python launch/benchmark.py train``: rows, sessions, base, the systems that train, checks and table."""
