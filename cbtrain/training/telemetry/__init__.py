"""What a run tells while it goes: a file of metrics, a display, and the services that a user asks for."""
