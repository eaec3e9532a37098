"""How many requests and tokens an account may send, and when."""
