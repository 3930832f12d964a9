"""Finding items by words: BM25 over the whole catalogue, by the library bm25s."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from sie_jax.data import lexical
from sie_jax.errors import UserError
from sie_jax.evaluation.retrieval import NOTHING


class WordIndex:
    """The words of N items (`lexical.words`), ranked by BM25 (Robertson and Zaragoza 2009).

    Source: Lù 2024, "BM25S: orders of magnitude faster lexical search via eager sparse scoring".
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError:
            raise UserError(
                "bm25s is not installed, which searches words: pip install 'sie_jax[retrieval]'"
            ) from None
        if not len(texts):
            raise UserError("the catalogue is empty: give one with items")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of each step
        self._size = len(texts)
        self._index: Any = bm25s.BM25(method="lucene")
        self._index.index([lexical.words(text) for text in texts], show_progress=False)

    def search(
        self, queries: Sequence[str], depth: int
    ) -> tuple[Int[np.ndarray, "Q depth"], Float32[np.ndarray, "Q depth"]]:
        """The places of the best items, equal scores by place, and their scores.

        NOTHING stands where no further item has a word of the query.

        Raises UserError where the depth is beyond the catalogue.
        """
        if not 1 <= depth <= self._size:
            raise UserError(
                f"{depth} items are asked for, and the catalogue has {self._size:,}: give a depth "
                f"from 1 to {self._size:,}"
            )
        places = np.full((len(queries), depth), NOTHING, np.int64)
        scores = np.zeros((len(queries), depth), np.float32)
        for row, query in enumerate(queries):
            asked = lexical.words(query)
            if not asked:
                continue
            own = self._index.get_scores(asked)
            order = np.argsort(-own, kind="stable")[:depth]
            order = order[own[order] > 0]
            places[row, : len(order)] = order
            scores[row, : len(order)] = own[order]
        return places, scores
