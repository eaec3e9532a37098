"""How people and programs talk to a local model."""
