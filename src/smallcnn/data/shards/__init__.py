"""Sets larger than a disk, or on object storage: tar files in webdataset's format, and an index of what is in them."""
