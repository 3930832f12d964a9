"""Exact per-example gradients, importance weights and honest evaluation for relevance models."""

import os

__version__ = "0.1.0"  # of the distribution too, which pyproject.toml reads here

# transformers complains at import that PyTorch is missing, which is intended here; so this comes
# before anything imports it
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
