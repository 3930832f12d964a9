"""Vectors of items' texts: by what words they share, or by a pretrained encoder."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy import sparse
from scipy.sparse import linalg

from sie_jax.data import lexical, sentences

LEAST_ITEMS = 2
"""A word of fewer texts says nothing that another item could share."""


def by_words(texts: Sequence[str], width: int) -> Float32[np.ndarray, "I width"]:
    """The texts' words, weighted and reduced to `width` numbers by their strongest directions.

    Rows of the matrix X_jw = log(1 + I/n_w) of the distinct words w of text j, n_w texts having the
    word, are normalised; the vectors are U S of its truncated singular value decomposition U S Vᵀ,
    scaled so that their mean squared norm is `width`. A text without words has 0. Where there are
    fewer directions than `width`, the rest is 0. Equal texts give equal vectors.

    Source: Deerwester et al., "Indexing by latent semantic analysis", 1990.
    """
    numbers: dict[str, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        own = {numbers.setdefault(word, len(numbers)) for word in lexical.words(text)}
        rows += [row] * len(own)
        columns += sorted(own)
    shape = (len(texts), max(len(numbers), 1))
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    counts = np.asarray(matrix.sum(0))[0]
    matrix = matrix[:, counts >= LEAST_ITEMS]
    weights = np.log(1 + len(texts) / counts[counts >= LEAST_ITEMS])
    matrix = matrix @ sparse.diags(weights)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)))[:, 0]
    matrix = sparse.diags(1 / np.where(norms > 0, norms, 1)) @ matrix
    directions = min(width, min(matrix.shape) - 1)
    found = np.zeros((len(texts), width), np.float32)
    if directions < 1:
        return found
    start = np.ones(min(matrix.shape)) / min(matrix.shape) ** 0.5  # or two calls would differ
    left, sizes, _ = linalg.svds(matrix, k=directions, v0=start)
    found[:, :directions] = (left * sizes)[:, ::-1]
    return _scaled(found)


def by_encoder(texts: Sequence[str], folder: str, width: int) -> Float32[np.ndarray, "I width"]:
    """The vectors of a pretrained encoder, less their mean, on their `width` strongest directions.

    folder: as `sentences.load` takes it. A text that is empty has 0.
    """
    vectors = sentences.encode(sentences.load(folder), texts)
    there = np.array([bool(text) for text in texts])
    centred = np.where(there[:, None], vectors - vectors[there].mean(0), 0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    reduced = centred @ directions[:width].T
    found = np.zeros((len(texts), width), np.float32)
    found[:, : reduced.shape[1]] = reduced
    return _scaled(found)


def _scaled(vectors: np.ndarray) -> np.ndarray:
    size = float(np.mean((vectors**2).sum(1)))
    return (vectors * (vectors.shape[1] / size) ** 0.5 if size else vectors).astype(np.float32)
