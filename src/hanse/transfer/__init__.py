"""Getting a file here, whole and verified: from what is at hand, and from several peers at once."""
