"""The ways in which a weight is held in memory."""
