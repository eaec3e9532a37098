"""Watch an evaluation while it runs: its state, how it is shown, and how another process follows it."""
