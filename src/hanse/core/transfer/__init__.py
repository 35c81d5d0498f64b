"""Which parts of a file are missing, whom to ask for which, and what to make of the answers."""
