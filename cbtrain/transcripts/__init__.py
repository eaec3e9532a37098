"""What a therapy session is: read, checked, cleaned, counted, split, written."""
