"""One layout of transcripts a file."""
