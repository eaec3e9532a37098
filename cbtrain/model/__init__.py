"""The decoder: attention, linears, adapters, weights in and out."""
