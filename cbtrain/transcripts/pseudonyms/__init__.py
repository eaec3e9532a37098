"""Replace names, places, dates and numbers in transcripts by consistent tags: a help, no guarantee of anonymity."""
