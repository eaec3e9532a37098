"""Texts as meeting and transcription services, recorders and word processors write them, made labelled texts."""
