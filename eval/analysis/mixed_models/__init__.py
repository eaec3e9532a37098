"""Linear mixed models that check the contrasts, and the 2024 study's own."""
