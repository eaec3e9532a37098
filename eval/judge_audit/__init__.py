"""Does a rater see what was changed in a session?"""
