"""Several adapters over one base: a file of runs, checked, trained in turn, and compared by held-out loss."""
