"""The generated shops of the bench as arrays: made once, kept as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sie_jax.data import features, lexical, translation
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources.market import MarketConfig, generate, noise
from sie_jax.files import whole

TRAINING, VALIDATION, TEST = 1000, 200, 3000
CLEAN = 100
"""How many of the validation queries have clean labels too, under access b."""
WIDTH, QUERY_WORDS, ITEM_WORDS, WORDS = 20, 12, 22, 1500
"""Pairs of a list, words of a query, of an item and of a shop: every shop has the same shapes."""
GAINS = np.array([0.0, 0.01, 0.1, 1.0])
SPLITS = ("train", "validation", "test")


class Lists(NamedTuple):
    """Q queries of one split with WIDTH pairs each; `mask` [Q, W] is False where there is no pair.

    words [Q, QUERY_WORDS], item_words [Q, W, ITEM_WORDS] int32: numbers of words, 0 is none.
    features [Q, W, F] float32: those of `sie_jax.data.features`, standardised within the query.
    truth, item, brand, position [Q, W] int: the right grade, the item, its seller, and its place
    in a result list that the shop ordered by shared words and chance. row [Q, W]: of the shop.
    """

    words: np.ndarray
    item_words: np.ndarray
    features: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    item: np.ndarray
    brand: np.ndarray
    position: np.ndarray
    row: np.ndarray

    def take(self, lists: np.ndarray) -> "Lists":
        """Some of the lists."""
        return Lists(*(each[lists] for each in self))


@dataclass(frozen=True)
class Shop:
    """A shop: its three splits, the weights of its words [WORDS], and what noise needs.

    judged: as `market.noise.relabel` takes it. brand, position [N]: of each row.
    """

    seed: int
    train: Lists
    validation: Lists
    test: Lists
    idf: np.ndarray
    judged: noise.Judged
    brand: np.ndarray
    position: np.ndarray
    queries: tuple[str, ...]
    items: tuple[str, ...]


def load(seed: int, folder: Path) -> Shop:
    """The shop of a seed, from its file in `folder` or made anew; both give the same arrays."""
    path = folder / f"shop-{seed}.npz"
    if not path.exists():
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **_arrays(seed))  # type: ignore[arg-type]  # none is named allow_pickle
    with np.load(path) as stored:
        found = dict(stored)
    judged = noise.Judged(found["truth"], found["query"], found["seen"], found["split"] != 2)
    train, validation, test = (_lists(found, place) for place in range(len(SPLITS)))
    return Shop(
        seed=seed,
        train=train,
        validation=validation,
        test=test,
        idf=found["idf"],
        judged=judged,
        brand=found["brand"],
        position=found["position"],
        queries=tuple(found["query_texts"].tolist()),
        items=tuple(found["item_texts"].tolist()),
    )


def _arrays(seed: int) -> dict[str, np.ndarray]:
    """Everything of a shop, row by row."""
    total = TRAINING + VALIDATION + TEST
    market = generate(
        MarketConfig(queries=total, seed=seed), validation=VALIDATION / total, test=TEST / total
    )
    table, catalogue = market.source.table, market.source.catalogue
    columns = {name: [one or "" for one in table[name].to_pylist()] for name in table.column_names}
    statistics = lexical.CorpusStatistics(
        *(lexical.count(catalogue[name].to_pylist()) for name in ("title", "text"))
    )
    pairs = features.Pairs(
        columns["query"],
        columns["title"],
        columns["text"],
        columns["query_id"],
        {name.removeprefix(ATTRIBUTE): columns[name] for name in columns if ATTRIBUTE in name},
    )
    items = translation.item_texts(*(catalogue[name].to_pylist() for name in ("title", "text")))
    numbers: dict[str, int] = {"": 0}
    words = _numbered(market.texts, numbers, QUERY_WORDS)
    item_words = _numbered(items, numbers, ITEM_WORDS)
    if len(numbers) > WORDS:
        raise ValueError(f"shop {seed} has {len(numbers)} words: raise WORDS, which is {WORDS}")
    idf = np.zeros(WORDS, np.float32)
    idf[: len(numbers)] = lexical.count(items).idf(numbers)
    values = features.standardised(pairs, statistics).values
    overlap = features.raw(pairs, statistics)[:, features.LEXICAL.index("overlap_title")]
    truth = market.truth
    # as in `market.behaviour.sessions`: an order between that of shared words and chance
    appeal = overlap + np.random.default_rng([seed, 20]).gumbel(scale=0.5, size=len(overlap))
    order = np.lexsort((-appeal, truth.query))
    starts = np.searchsorted(truth.query[order], truth.query)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return {
        "truth": truth.grade,
        "query": truth.query,
        "item": truth.item,
        "split": np.array([SPLITS.index(one) for one in columns["split"]]),
        "seen": np.round(10 * overlap).astype(np.int64),
        "brand": np.unique(columns[ATTRIBUTE + "brand"], return_inverse=True)[1],
        "position": position - starts,
        "features": values,
        "words": words,
        "item_words": item_words,
        "idf": idf,
        "query_texts": np.array(market.texts),
        "item_texts": np.array(items),
    }


def _numbered(texts: Sequence[str], numbers: dict[str, int], width: int) -> np.ndarray:
    """The numbers [N, width] of the first different words of each text; new words are added."""
    found = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        words = list(dict.fromkeys(lexical.words(text)))[:width]
        found[row, : len(words)] = [numbers.setdefault(word, len(numbers)) for word in words]
    return found


def _lists(found: dict[str, np.ndarray], split: int) -> Lists:
    """The lists of a split; rows of a query stand together."""
    rows = np.flatnonzero(found["split"] == split)
    queries, place = np.unique(found["query"][rows], return_inverse=True)
    within = np.arange(len(rows)) - np.searchsorted(place, np.arange(len(queries)))[place]
    row = np.zeros((len(queries), WIDTH), np.int64)
    mask = np.zeros(row.shape, bool)
    row[place, within], mask[place, within] = rows, True
    item = found["item"][row]
    return Lists(
        words=found["words"][queries],
        item_words=found["item_words"][item] * mask[..., None],
        features=found["features"][row] * mask[..., None],
        mask=mask,
        truth=np.where(mask, found["truth"][row], 0),
        item=item,
        brand=found["brand"][row],
        position=found["position"][row],
        row=row,
    )
