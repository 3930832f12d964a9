"""The items that are judged for each query: about what search engines of different kinds return."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

from sie_jax.data.sources.market.items import Catalogue
from sie_jax.data.sources.market.needs import COMPLEMENT, EXACT, SUBSTITUTE, Need, judge

# Shares of a query's candidates: exact ones, others of the class or its substitute (a semantic
# engine), those that share most words (a lexical engine), accessories; the rest is popular items.
_SHARES = {"exact": 0.25, "near": 0.25, "lexical": 0.1, "complement": 0.25}
_LEXICAL_DEPTH = 3  # the lexical ones are drawn among this many times as many best
_BLOCK = 1 << 24  # scores of the lexical engine that are held at a time


def choose(
    rng: np.random.Generator,
    catalogue: Catalogue,
    needs: Sequence[Need],
    best_lexical: Iterator[np.ndarray],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The judged pairs: query [N] and item [N], query after query, items in random order.

    A query has between four fifths of `count` and `count` items, all different, one of them exact
    at least.

    Args:
      needs: of the queries; each is met by some item.
      best_lexical: for each query the items that share most words with it.
    """
    products = [catalogue.accessory < 0, catalogue.accessory >= 0]
    inside = {
        department: np.flatnonzero(catalogue.department == department)
        for department in np.unique(catalogue.department).tolist()
    }
    query_of_row, item_of_row = [], []
    for query, (need, lexical) in enumerate(zip(needs, best_lexical, strict=True)):
        total = int(rng.integers(-(-4 * count // 5), count + 1))
        near = inside[need.department]
        grade, _ = judge(catalogue, need, near)
        of_kind = products[need.accessory >= 0][near]
        pools = {
            "exact": near[grade == EXACT],
            "near": near[(grade == SUBSTITUTE) & of_kind],
            "lexical": lexical,
            "complement": near[grade == COMPLEMENT],
        }
        chosen: list[int] = []
        wanted = rng.multinomial(total, [*_SHARES.values(), 1 - sum(_SHARES.values())])
        wanted[0] = max(wanted[0], 1)
        for pool, size in zip(pools.values(), wanted[:-1], strict=True):
            chosen += _draw(rng, catalogue, np.setdiff1d(pool, chosen), int(size))
        everything = np.arange(len(catalogue))
        rest = total - len(chosen)
        if rest > 0:
            others = rng.choice(everything, size=min(3 * total, len(everything)), replace=False)
            chosen += _draw(rng, catalogue, np.setdiff1d(others, chosen), rest)
        del chosen[total:]  # the exact one that every query has may be one too many
        query_of_row.append(np.full(len(chosen), query))
        item_of_row.append(rng.permutation(np.array(chosen)))
    return np.concatenate(query_of_row), np.concatenate(item_of_row)


def _draw(rng: np.random.Generator, catalogue: Catalogue, pool: np.ndarray, size: int) -> list[int]:
    """`size` different items of the pool, or all of it; popular ones are likelier."""
    size = min(size, len(pool))
    weights = np.sqrt(catalogue.popularity[pool])
    # The first of independent exponential waits are a draw in proportion without replacement.
    waits = rng.exponential(size=len(pool)) / weights
    return pool[np.argsort(waits, kind="stable")[:size]].tolist()


def lexical(queries: Sequence[str], titles: Sequence[str], count: int) -> Iterator[np.ndarray]:
    """For each query the items that share most of its words, rare words counting more.

    Scores are integers, so that the order is the same on every machine; ties go by item.
    """
    depth = min(_LEXICAL_DEPTH * count, len(titles))
    vocabulary: dict[str, int] = {}
    item_words = _matrix(titles, vocabulary)
    item_words.data[:] = 1
    frequency = np.maximum(np.bincount(item_words.indices, minlength=len(vocabulary)), 1)
    weight = np.rint(16 * np.log(1 + len(titles) / frequency)).astype(np.int64)
    block = max(1, _BLOCK // len(titles))
    for start in range(0, len(queries), block):
        query_words = _matrix(queries[start : start + block], vocabulary, grow=False)
        query_words.data[:] = weight[query_words.indices]
        scores = (query_words @ item_words.T).toarray()
        scores = scores * len(titles) - np.arange(len(titles))
        for row in scores:
            best = np.argpartition(-row, depth - 1)[:depth]
            yield best[row[best] > 0]


def _matrix(
    texts: Sequence[str], vocabulary: dict[str, int], *, grow: bool = True
) -> sparse.csr_matrix:
    """Which words of the vocabulary each text has; `grow` adds new ones to the vocabulary."""
    places: list[int] = []
    ends = [0]
    for text in texts:
        found = {
            vocabulary.setdefault(word, len(vocabulary)) if grow else vocabulary.get(word, -1)
            for word in re.findall(r"\w+", text.casefold())
        }
        places += sorted(found - {-1})
        ends.append(len(places))
    shape = (len(texts), len(vocabulary))
    return sparse.csr_matrix((np.ones(len(places), np.int64), places, ends), shape=shape)
