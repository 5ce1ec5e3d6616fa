"""Images in: where they come from (sources), how they are decoded and prepared, and batches of them (loader)."""
