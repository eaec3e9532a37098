"""Agreement of judges, the panel of primary judges, and the judges' severity."""
