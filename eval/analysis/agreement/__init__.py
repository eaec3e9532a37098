"""What ratings are worth: agreement, a panel of judges, their severity."""
