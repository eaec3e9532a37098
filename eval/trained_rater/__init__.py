"""A rater of one's own: fitted to scores that exist, on counted features. It imitates whoever gave them."""
