"""The formats of the APIs: write requests and read answers. No network here."""
