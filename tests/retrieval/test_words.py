import math

import numpy as np
import pytest

from sie_jax.errors import UserError
from sie_jax.evaluation.retrieval import NOTHING
from sie_jax.retrieval.words import WordIndex

TEXTS = ["red shoe", "blue shoe", "red red hat", "green coat"]


def test_scores_are_those_of_bm25() -> None:
    index = WordIndex(TEXTS)
    places, scores = index.search(["red shoe", "scarf", ""], 4)
    # Lucene's form: idf log(1 + (N − n + ½)/(n + ½)), tf / (tf + k (1 − b + b length / mean))
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    mean = (2 + 2 + 3 + 2) / 4

    def part(tf: float, length: int) -> float:
        return idf * tf / (tf + 1.5 * (0.25 + 0.75 * length / mean))

    expected = [2 * part(1, 2), part(1, 2), part(2, 3), 0.0]
    order = np.argsort(-np.array(expected), kind="stable")[:3]
    assert places[0].tolist() == [*order.tolist(), NOTHING]
    assert np.allclose(scores[0, :3], np.array(expected)[order], atol=1e-5)
    assert places[1:].tolist() == [[NOTHING] * 4] * 2


def test_what_cannot_be_searched_is_told() -> None:
    with pytest.raises(UserError, match="the catalogue is empty"):
        WordIndex([])
    with pytest.raises(UserError, match="5 items are asked for"):
        WordIndex(TEXTS).search(["red"], 5)
