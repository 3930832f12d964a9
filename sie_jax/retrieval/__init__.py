"""Finding items in a whole catalogue: by vectors, by words, and by both."""
