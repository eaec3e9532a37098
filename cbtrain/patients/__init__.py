"""Patients who are simulated: what is known of one, how files and the library are read, how drafts are written."""
