"""The content of ``report.json`` as pydantic models. A file's missing or odd parts become empty ones on reading."""
