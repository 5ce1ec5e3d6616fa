"""Other programs' networks: what their readers share."""
