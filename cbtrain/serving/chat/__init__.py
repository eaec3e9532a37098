"""A person talks to a local model in the terminal (``cbtrain chat``)."""
