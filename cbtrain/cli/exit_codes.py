"""Exit statuses of every command: ``cbtrain --help`` and docs/configuration.md show the same table."""

DONE = 0

FOUND = 1
"""A check found a problem: `corpus check`, `patients check`, `config check`, `plan`, `doctor`."""

BAD_INPUT = 2
"""Bad input, or a run that failed."""

UNSAFE = 3
"""Reserved: no command ends with it yet."""

STOPPED = 75
"""Stopped by a signal, and can continue: EX_TEMPFAIL of sysexits.h, "try again"."""

SIGNALLED = 128
"""Plus the number of the signal that ended a command which has nothing to continue (143 for SIGTERM), as shells report
it; not in the table."""

INTERRUPTED = 130

BROKEN_PIPE = 141
"""The reader of the output has closed it, as ``| head`` does: no outcome of the command, so not in the table."""

TABLE = {
    DONE: "done",
    FOUND: "a check found a problem",
    BAD_INPUT: "bad input, or a run that failed; one line says why",
    UNSAFE: "reserved for a future safety check",
    STOPPED: "stopped by a signal: the last line says how to continue",
    INTERRUPTED: "interrupted",
}
"""What each status means."""
