"""Analysis of a detector: what goes wrong with which object, and how far its scores can be trusted."""
