"""The decoder's layer in training, as one function with a backward pass by hand."""
