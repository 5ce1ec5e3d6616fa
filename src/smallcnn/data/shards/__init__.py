"""Data sets larger than a disk or on object storage: tar files in webdataset's format."""
