"""Compare objectives of training on the same pairs of answers: equal data, tokens and search of the learning rate."""
