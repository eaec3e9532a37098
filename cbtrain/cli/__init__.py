"""The ``cbtrain`` command, a file a command. They parse arguments and print; the work is done in the rooms."""
