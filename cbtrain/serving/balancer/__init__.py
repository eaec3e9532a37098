"""Several processes, each with the model on a device of its own, behind one port."""
