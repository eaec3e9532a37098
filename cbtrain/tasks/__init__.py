"""Tasks with an exact measure, on which methods of fine-tuning can be compared."""
