"""Where the time and the memory of training go, measured with PyTorch's profiler and told by component."""
