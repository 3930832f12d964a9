"""The stages of a run: each a function that is made once in the workdir."""
