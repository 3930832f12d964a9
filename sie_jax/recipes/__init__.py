"""What is done in which order: stages put together, in straight-line Python."""
