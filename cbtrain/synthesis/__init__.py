"""New transcripts, written by a large model behind a provider."""
