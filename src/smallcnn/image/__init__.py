"""One image: decoding it and fitting it to a network's input."""
