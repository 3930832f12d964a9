"""Translation: which words of items stand for which words of queries, learnt from judged pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Float64, Int64

from sie_jax.data import lexical
from sie_jax.errors import UserError
from sie_jax.files import whole

# Shares of a query word's probability: translated, the item's own word, any word of a query.
TRANSLATED, SAME, ANY = 0.75, 0.05, 0.2

_ROUNDS = 5  # of expectation and maximisation; what is learnt hardly changes after them
_CHUNK = 8_192  # pairs whose words are crossed at a time; it bounds memory
_SCHEMA = pa.schema(
    {
        "query_word": pa.list_(pa.string()),
        "item_word": pa.list_(pa.string()),
        "cell": pa.list_(pa.int64()),
        "probability": pa.list_(pa.float64()),
        "frequency": pa.list_(pa.float64()),
        "unseen": pa.list_(pa.float64()),
    }
)


@dataclass(frozen=True)
class Translation:
    """Word-to-word probabilities, and the score that they give a pair.

    Attributes:
      query_words, item_words: the words seen in learning; a word's place is its number.
      cells: `[C]`, ascending: of each query word and item word seen together, the number of the
        query word times the number of item words, plus that of the item word.
      probabilities: `[C]`, p(query word | item word); over the cells of an item word they sum to 1.
      frequencies: `[Q]`, the share of each query word among all; an unseen word gets `unseen`.
      unseen: the share of half an occurrence of the least gain, of at most 1.
    """

    query_words: tuple[str, ...]
    item_words: tuple[str, ...]
    cells: Int64[np.ndarray, "C"]
    probabilities: Float64[np.ndarray, "C"]
    frequencies: Float64[np.ndarray, "Q"]
    unseen: float

    def scores(self, queries: Sequence[str], items: Sequence[str]) -> Float64[np.ndarray, "N"]:
        """How well each item explains its query: the mean over the query's different words w of

            log(0.75 Σ_t p(w | t) / n + 0.05 [w in item] / n + 0.2 p(w))

        with t over the item's n different words. 0 for a query without words; an item without words
        gives the words' own frequencies. A pair's score depends on its two texts alone.

        Source: Xue, Jeon and Croft, "Retrieval models for question and answer archives", 2008.
        """
        starts = range(0, len(queries), _CHUNK)
        parts = [
            self._scores(*(side[at : at + _CHUNK] for side in (queries, items))) for at in starts
        ]
        return np.concatenate([np.empty(0), *parts])

    def _scores(self, queries: Sequence[str], items: Sequence[str]) -> np.ndarray:
        links = _links(queries, items)
        query_word = _numbers(self.query_words, links.query_vocabulary)
        item_word = _numbers(self.item_words, links.item_vocabulary)
        asked, given = query_word[links.query_word[links.entry]], item_word[links.item_word]
        wanted = np.where((asked < 0) | (given < 0), -1, asked * len(self.item_words) + given)
        at = np.searchsorted(self.cells, wanted)  # C where none is as large
        known = np.append(self.cells, -1)[at] == wanted
        found = np.where(known, np.append(self.probabilities, 0.0)[at], 0.0)
        entries = len(links.query_word)
        translated = np.bincount(links.entry, found, entries)
        alike = _numbers(links.query_vocabulary, links.item_vocabulary)[links.item_word]
        same = np.bincount(links.entry, links.query_word[links.entry] == alike, entries)
        frequency = np.append(self.frequencies, self.unseen)[query_word[links.query_word]]
        length = np.maximum(links.lengths, 1)[links.pair]
        chance = (TRANSLATED * translated + SAME * same) / length + ANY * frequency
        number = np.bincount(links.pair, minlength=len(queries))
        return np.bincount(links.pair, np.log(chance), len(queries)) / np.maximum(number, 1)

    def save(self, path: Path) -> None:
        """Writes one Parquet file; the numbers are exact."""
        columns = {
            "query_word": list(self.query_words),
            "item_word": list(self.item_words),
            "cell": self.cells.tolist(),
            "probability": self.probabilities.tolist(),
            "frequency": self.frequencies.tolist(),
            "unseen": [self.unseen],
        }
        with whole(path) as temporary:
            pq.write_table(pa.Table.from_pylist([columns], _SCHEMA), temporary)

    def _check(self) -> None:
        """Raises ValueError where `scores` would fail, or give no number."""
        numbers = np.concatenate([self.probabilities, self.frequencies, [self.unseen]])
        if not ((numbers >= 0) & (numbers <= 1 + 1e-9)).all():  # sums of rounded shares
            raise ValueError("a probability is not a number from 0 to 1")
        words = (self.query_words, self.item_words)
        ends = {"prepend": -1, "append": len(self.query_words) * len(self.item_words)}
        if (
            any(None in one for one in words)
            or len(self.frequencies) != len(self.query_words)
            or len(self.probabilities) != len(self.cells)
            or not (np.diff(self.cells, **ends) > 0).all()
        ):
            raise ValueError("its words and numbers do not fit together")

    @classmethod
    def load(cls, path: Path) -> "Translation":
        """Reads what `save` wrote; UserError where there is no such file or it is another one."""
        try:
            table = pq.read_table(path)
            if table.schema != _SCHEMA or table.num_rows != 1:
                raise ValueError("its columns are others than those of a word translation")
            fields = {name: table[name].combine_chunks().flatten() for name in table.column_names}
            made = cls(
                query_words=tuple(fields["query_word"].to_pylist()),
                item_words=tuple(fields["item_word"].to_pylist()),
                cells=fields["cell"].to_numpy(),
                probabilities=fields["probability"].to_numpy(),
                frequencies=fields["frequency"].to_numpy(),
                unseen=float(fields["unseen"].to_numpy().item()),
            )
            made._check()
            return made
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: the word translation cannot be read ({reason}): copy the model's folder "
                "again"
            ) from None


def item_texts(titles: Sequence[str], texts: Sequence[str | None]) -> list[str]:
    """The text of each item by which it is translated: its title, and its further text."""
    return [f"{title} {text or ''}" for title, text in zip(titles, texts, strict=True)]


def learn(
    queries: Sequence[str], items: Sequence[str], gains: Float[np.ndarray, "N"]
) -> Translation:
    """Word translation from N judged pairs, each counted by its gain; others teach nothing.

    IBM model 1 by expectation and maximisation, over the different words of each text: every word
    of the query comes from one of the item's, p(w | t) is the expected share of w among what t
    gives. It starts from equal probabilities, and its likelihood has one maximum, so the order of
    the pairs matters to rounding alone.

    Where no pair teaches anything, every word is unseen, with p(w) = 1.

    Source: Brown et al., "The mathematics of statistical machine translation", 1993, section 4.1.
    """
    taught = [row for row, gain in enumerate(gains) if gain > 0]
    links = _links([queries[row] for row in taught], [items[row] for row in taught])
    gain = np.asarray(gains, np.float64)[taught][links.pair]
    width = len(links.item_vocabulary)
    cells, cell = np.unique(
        links.query_word[links.entry] * width + links.item_word, return_inverse=True
    )
    probabilities = np.ones(len(cells))
    for _ in range(_ROUNDS):
        share = probabilities[cell]
        share *= (gain / np.bincount(links.entry, share, len(gain)).clip(1e-300))[links.entry]
        expected = np.bincount(cell, share)
        probabilities = expected / np.bincount(cells % width, expected, width)[cells % width]
    counts = np.bincount(links.query_word, gain)
    least = gain.min(initial=1.0) / 2
    return Translation(
        tuple(links.query_vocabulary),
        tuple(links.item_vocabulary),
        cells,
        probabilities,
        counts / (counts.sum() + least),
        float(least / (counts.sum() + least)),
    )


class _Links(NamedTuple):
    """The different words of N pairs, E entries of query words, and M links to the item's words.

    pair, query_word: `[E]`, of each entry. entry, item_word: `[M]`, of each link. lengths: `[N]`,
    how many different words each item has. The words are places in the vocabularies.
    """

    pair: np.ndarray
    query_word: np.ndarray
    entry: np.ndarray
    item_word: np.ndarray
    lengths: np.ndarray
    query_vocabulary: list[str]
    item_vocabulary: list[str]


def _links(queries: Sequence[str], items: Sequence[str]) -> _Links:
    asked, asked_of, query_vocabulary = _words(queries)
    given, given_of, item_vocabulary = _words(items)
    lengths = np.bincount(given_of, minlength=len(items))
    links = lengths[asked_of]
    entry = np.repeat(np.arange(len(asked)), links)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(links) - links, links)
    starts = (np.cumsum(lengths) - lengths)[asked_of[entry]]
    item_word = given[starts + within]
    return _Links(asked_of, asked, entry, item_word, lengths, query_vocabulary, item_vocabulary)


def _words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The different words of each text and the text of each, in order; the vocabulary."""
    split = lexical.split_all(texts)
    vocabulary: dict[str, int] = {}
    numbers = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in dict.fromkeys(words)]
        for words in split.words
    ]
    word = [number for place in split.place for number in numbers[place]]
    text = np.repeat(np.arange(len(texts)), [len(numbers[place]) for place in split.place])
    return np.array(word, np.int64), text, list(vocabulary)


def _numbers(known: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """The place of each word among the known ones; -1 for an unknown one."""
    places = {word: place for place, word in enumerate(known)}
    return np.array([places.get(word, -1) for word in words], np.int64)
