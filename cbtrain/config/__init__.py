"""One file format for a whole study: the packages' settings in one, YAML in, ``key=value`` over it."""
