"""Exact per-example gradients, importance weights and honest evaluation for relevance models."""

import os

# transformers complains at import that PyTorch is missing, which is intended here; so this comes
# before anything imports it
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
