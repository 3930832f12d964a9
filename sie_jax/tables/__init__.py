"""Tables on disk, larger than memory: spooled, in parts, joined, with where columns came from."""
