"""The ``cbtrain`` command, one file per command. They parse arguments and print; other packages do the work."""
