"""One training run: state, steps, loop, what is logged and kept."""
