"""One file format for a whole study: the rooms' settings composed, YAML in, ``key=value`` over it."""
