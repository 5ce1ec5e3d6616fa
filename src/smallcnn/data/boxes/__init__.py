"""Boxes of objects from annotation files: one file per format, and the checks that all of them share."""
