"""Exit statuses of every command."""

DONE = 0

FOUND = 1
"""A check that found something."""

BAD_INPUT = 2
"""Bad input, or a run that failed."""

STOPPED = 75
"""Asked to stop, and can go on: EX_TEMPFAIL of sysexits.h, "try again"."""

INTERRUPTED = 130

BROKEN_PIPE = 141
"""Whoever read the output has closed it, as ``| head`` does."""
