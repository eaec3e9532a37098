"""Engines: how gradients become steps, on one process or many, behind one interface."""
