"""The formats of the APIs: how a request is written and an answer read. No network here."""
