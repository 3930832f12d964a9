"""Passes over a data set that change nothing: scores, gradients, embeddings, predictions."""
