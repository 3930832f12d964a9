"""The HTML report of a run, and its results in the terminal."""
