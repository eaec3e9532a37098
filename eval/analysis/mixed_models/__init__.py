"""Linear mixed models beside the contrasts, and the 2024 study's own."""
