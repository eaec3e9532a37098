"""The 2025 study's own analysis (Tahir 2025, arXiv 2509.09712), and beside it what the study left out."""
