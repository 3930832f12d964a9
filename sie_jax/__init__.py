"""Exact per-example gradients, importance weights and honest evaluation for relevance models."""
