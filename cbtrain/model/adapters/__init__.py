"""Methods of fine-tuning behind one interface, and their files in the PEFT layout."""
