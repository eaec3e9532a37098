"""From a session to token ids and loss weights, and from these to packs."""
