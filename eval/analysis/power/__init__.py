"""How many patients, sessions and repeats show an effect."""
