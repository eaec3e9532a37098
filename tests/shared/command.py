"""The ``cbtrain`` command as people use it: a process with its exit status, standard output and error."""

import forked

ENTRY = "cbtrain.cli.main:entry"


def cbtrain(*arguments, cwd=".", **options):
    """Run it to its end; see :class:`forked.Forked` for ``options``."""
    return forked.run(ENTRY, *arguments, cwd=cwd, **options)


def start_cbtrain(*arguments, cwd=".", **options):
    """Start it."""
    return forked.Forked(ENTRY, *arguments, cwd=cwd, **options)
