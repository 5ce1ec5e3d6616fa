"""Data sets: where the images lie, what they are labelled with, and how they become batches."""
