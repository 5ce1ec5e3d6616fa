"""Codecs of packed model files: weights in fewer bytes, loaded to exactly the same numbers."""
