"""What training makes smaller: cross-entropy of sessions, or a loss of pairs of answers."""
