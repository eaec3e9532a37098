"""Do simulated patients behave like patients: measures of what they say, and sets of sessions compared."""
