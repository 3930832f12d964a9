"""What users did with items, in the order of time: read, cleaned, split, and cut into batches."""
