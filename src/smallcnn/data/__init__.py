"""Image data: sources, decoding, preprocessing and batch loading."""
