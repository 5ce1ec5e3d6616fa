"""After training: which classes fail and on which images, what probabilities are worth, at which input size."""
