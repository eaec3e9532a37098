"""Model folders: found, read, checked, written."""
