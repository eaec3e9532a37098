"""What is read out of an answer's text, whatever the API: thinking, refusals, endings, JSON. No network here."""
