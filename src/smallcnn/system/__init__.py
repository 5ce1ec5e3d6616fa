"""The machine: files, locks, caches, downloads, the processor."""
