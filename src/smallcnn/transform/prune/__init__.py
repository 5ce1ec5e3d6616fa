"""Structured pruning: channels that matter least are removed, which leaves a smaller network of the same kind."""
