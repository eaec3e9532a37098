"""From tables of scores to claims, the patient as the unit."""
