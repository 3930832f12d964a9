"""What the makers of a shop know of every query and item, beyond the judged pairs of `shops`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sie_bench import shops
from sie_jax.data import lexical, translation
from sie_jax.data.sources.market import MarketConfig, generate, needs
from sie_jax.files import whole


class World(NamedTuple):
    """A shop's queries and its whole catalogue, by their numbers in the market.

    words [Q, QUERY_WORDS], item_words [I, ITEM_WORDS] int32: numbers of words, 0 is none.
    idf [WORDS]: of those words. split [Q]: a place in `shops.SPLITS`. department [Q]: of the need.
    exact [Q, I] bool: which items meet the need, judged or not.
    """

    words: np.ndarray
    item_words: np.ndarray
    idf: np.ndarray
    split: np.ndarray
    department: np.ndarray
    exact: np.ndarray


def load(seed: int, folder: Path) -> World:
    """The world of a shop's seed, from its file in `folder` or made anew."""
    path = folder / f"world-{seed}.npz"
    if not path.exists():
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **_made(seed)._asdict())
    with np.load(path) as stored:
        found = World(**stored)
    items = len(found.item_words)
    return found._replace(exact=np.unpackbits(found.exact, axis=1, count=items).astype(bool))


def _made(seed: int) -> World:
    """The world with `exact` packed to bits."""
    total = shops.TRAINING + shops.VALIDATION + shops.TEST
    market = generate(
        MarketConfig(queries=total, seed=seed),
        validation=shops.VALIDATION / total,
        test=shops.TEST / total,
    )
    catalogue, table = market.source.catalogue, market.source.table
    items = translation.item_texts(*(catalogue[name].to_pylist() for name in ("title", "text")))
    numbers: dict[str, int] = {"": 0}
    words = shops._numbered(market.texts, numbers, shops.QUERY_WORDS)
    item_words = shops._numbered(items, numbers, shops.ITEM_WORDS)
    idf = np.zeros(shops.WORDS, np.float32)
    idf[: len(numbers)] = lexical.count(items).idf(numbers)
    split = np.zeros(total, np.int64)
    split[market.truth.query] = [shops.SPLITS.index(one) for one in table["split"].to_pylist()]
    every = np.arange(len(items))
    exact = [
        np.packbits(needs.judge(market.catalogue, need, every)[0] == needs.EXACT)
        for need in market.truth.needs
    ]
    department = np.array([need.department for need in market.truth.needs])
    return World(words, item_words, idf, split, department, np.stack(exact))
