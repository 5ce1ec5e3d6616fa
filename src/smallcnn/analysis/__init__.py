"""After training: which classes fail and on which pictures, what probabilities are worth, at which input size."""
