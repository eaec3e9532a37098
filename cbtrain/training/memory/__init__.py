"""Memory: what a process holds, what allocations add up to, what the C library takes for them."""
