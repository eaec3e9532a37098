"""How records and tables of any layout become sessions: by a map, or by names that are common."""
