"""Patient and therapist talk: one session, its speakers, many sessions at once."""
