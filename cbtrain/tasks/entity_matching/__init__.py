"""Entity matching: do two records describe the same product? Yes or No."""
