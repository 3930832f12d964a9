"""Words of texts, corpus statistics of a catalogue, and BM25 of given query–item pairs."""

import functools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from sie_jax.errors import UserError
from sie_jax.files import whole

# Kana and Chinese characters have no spaces between words, so each character counts as a word.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")

# The defaults of bm25s.
K1, B = 1.5, 0.75

_SCHEMA = pa.schema({"word": pa.string(), "title": pa.int64(), "text": pa.int64()})


def words(text: str) -> list[str]:
    """The words of a text in their order: NFKC, case folded, plural endings removed.

    A word is a run of Unicode letters and digits, so "5.5" is two words and "16gb" is one. Kana and
    Chinese characters are one word each.

    >>> words("Batteries for the X-200's (boxes)")
    ['battery', 'for', 'the', 'x', '200', 's', 'box']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return [singular(word) for word in _WORD.findall(text.casefold())]


@functools.lru_cache(maxsize=1 << 18)  # a catalogue repeats its words
def singular(word: str) -> str:
    """The word without its English plural ending; words of up to three letters stay.

    The first rule that fits decides: -ies becomes -y; -xes, -ches, -shes and -sses lose -es; -s
    is removed except from -us, -ss and -is. Both sides of a pair go through it, so what matters is
    that singular and plural meet, not that the result is a word.

    Source: Harman, "How effective is suffixing?", 1991 (the S stemmer), with -es after a sibilant.
    """
    if len(word) <= 3 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word if word.endswith(("us", "ss", "is")) else word[:-1]


@dataclass(frozen=True)
class FieldStatistics:
    """What BM25 needs to know of one field of a catalogue.

    documents: how many items have at least one word in the field. mean_length: their mean number of
    words; 0 where there are none. frequencies: for each word, how many documents have it.
    """

    documents: int
    mean_length: float
    frequencies: Mapping[str, int]

    def idf(self, vocabulary: Iterable[str]) -> Float64[np.ndarray, "V"]:
        """log(1 + (documents - df + 1/2) / (df + 1/2)) of each word; df is 0 for an unknown one."""
        frequency = np.array([self.frequencies.get(word, 0) for word in vocabulary], np.float64)
        return np.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))

    def check(self) -> None:
        """Raises ValueError or TypeError where these are no counts of a catalogue."""
        if not (0 <= self.documents < 2**63 and 0 <= self.mean_length < math.inf):
            raise ValueError("its counts of documents or words are no numbers of 0 or more")
        if not all(0 <= found <= self.documents for found in self.frequencies.values()):
            raise ValueError("a word is in more documents than there are")


def count(texts: Iterable[str | None]) -> FieldStatistics:
    """The statistics of one field of a catalogue, whose texts are gone through once.

    Memory holds the different words. A text without words is no document.
    """
    frequencies: Counter[str] = Counter()
    documents = total = 0
    for text in texts:
        found = words(text or "")
        documents += bool(found)
        total += len(found)
        frequencies.update(set(found))
    return FieldStatistics(documents, total / max(documents, 1), frequencies)


@dataclass(frozen=True)
class CorpusStatistics:
    """The statistics of a catalogue's titles and further texts, which travel with a model."""

    title: FieldStatistics
    text: FieldStatistics

    def save(self, path: Path) -> None:
        """Writes one Parquet file: a row per word, the counts of documents in its metadata."""
        fields = {"title": self.title, "text": self.text}
        vocabulary = sorted(set(self.title.frequencies) | set(self.text.frequencies))
        facts = {
            name: {"documents": field.documents, "mean_length": field.mean_length}
            for name, field in fields.items()
        }
        counts = {
            name: [field.frequencies.get(word, 0) for word in vocabulary]
            for name, field in fields.items()
        }
        table = pa.table({"word": vocabulary, **counts}, _SCHEMA)
        with whole(path) as temporary:
            pq.write_table(table.replace_schema_metadata({"fields": json.dumps(facts)}), temporary)

    @classmethod
    def load(cls, path: Path) -> "CorpusStatistics":
        """Reads what `save` wrote; UserError where there is no such file or it is another one."""
        try:
            table = pq.read_table(path)
            facts = json.loads((table.schema.metadata or {})[b"fields"])
            if table.schema != _SCHEMA or any(column.null_count for column in table.columns):
                raise ValueError("its columns are others than those of corpus statistics")
            vocabulary = table["word"].to_pylist()
            fields = {
                name: FieldStatistics(
                    documents=facts[name]["documents"],
                    mean_length=facts[name]["mean_length"],
                    frequencies={
                        word: df
                        for word, df in zip(vocabulary, table[name].to_pylist(), strict=True)
                        if df
                    },
                )
                for name in ("title", "text")
            }
            for field in fields.values():
                field.check()
        except (
            *(OSError, KeyError, ValueError, TypeError, RecursionError),
            pa.ArrowException,
        ) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: the corpus statistics cannot be read ({reason}): copy the model's folder "
                "again"
            ) from None
        return cls(**fields)


class Matches(NamedTuple):
    """How often each document has each different word of its query, for N pairs.

    One entry per pair and different query word, pairs in their order and a query's words in the
    order in which they first occur: M entries.

    Attributes:
      pair: the pair of each entry, in [0, N), ascending.
      word: the word of each entry, a place in `vocabulary`.
      asked: how often the query has it, at least 1.
      found: how often the document has it, 0 or more.
      lengths: `[N]`, the number of words of each pair's document.
      vocabulary: the different words of all queries.
    """

    pair: Int64[np.ndarray, "M"]
    word: Int64[np.ndarray, "M"]
    asked: Int64[np.ndarray, "M"]
    found: Int64[np.ndarray, "M"]
    lengths: Int64[np.ndarray, "N"]
    vocabulary: list[str]

    def total(self, values: np.ndarray) -> Float64[np.ndarray, "N"]:
        """The sum over each pair's entries; 0 for a pair whose query has no words."""
        return np.bincount(self.pair, weights=values, minlength=len(self.lengths))

    def overlap(self) -> Float64[np.ndarray, "N"]:
        """The share of the query's different words that the document has; 0 without words."""
        return self.total(self.found > 0) / np.maximum(self.total(np.ones(len(self.pair))), 1)


class Texts(NamedTuple):
    """N texts as the words of the different ones: text i is `words[place[i]]`."""

    words: list[list[str]]
    place: Int64[np.ndarray, "N"]


def split_all(texts: Sequence[str]) -> Texts:
    """The words of texts that may repeat, each different text split once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    place = np.fromiter((places[text] for text in texts), np.int64, len(texts))
    return Texts([words(text) for text in places], place)


def match(queries: Texts, documents: Texts) -> Matches:
    """Finds the words of each query in the document of the same pair.

    It takes one look-up per pair and query word, in sorted (document, word) numbers; words that no
    query has are only counted.
    """
    vocabulary: dict[str, int] = {}
    counts = [Counter(query) for query in queries.words]
    for query in counts:
        for word in query:
            vocabulary.setdefault(word, len(vocabulary))
    query_lengths = np.array([len(query) for query in counts], np.int64)
    query_starts = np.cumsum(query_lengths) - query_lengths
    query_words = np.array([vocabulary[word] for query in counts for word in query], np.int64)
    asked = np.array([number for query in counts for number in query.values()], np.int64)

    # the entries of pair i are those of its query, from query_starts on
    entries = query_lengths[queries.place]
    pair = np.repeat(np.arange(len(entries)), entries)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(entries) - entries, entries)
    at = query_starts[queries.place][pair] + within
    word = query_words[at]

    width = max(len(vocabulary), 1)
    known = [[vocabulary[w] for w in document if w in vocabulary] for document in documents.words]
    lengths = np.array([len(document) for document in known], np.int64)
    flat = np.fromiter((w for document in known for w in document), np.int64, lengths.sum())
    numbers, times = np.unique(
        np.repeat(np.arange(len(known)), lengths) * width + flat, return_counts=True
    )
    wanted = documents.place[pair] * width + word
    place = np.minimum(np.searchsorted(numbers, wanted), max(len(numbers) - 1, 0))
    found = np.zeros(len(pair), np.int64)
    if len(numbers):
        found = np.where(numbers[place] == wanted, times[place], 0)
    total = np.array([len(document) for document in documents.words], np.int64)
    return Matches(pair, word, asked[at], found, total[documents.place], list(vocabulary))


def bm25(
    matches: Matches, statistics: FieldStatistics, *, k1: float = K1, b: float = B
) -> Float64[np.ndarray, "N"]:
    """BM25 of each pair, Lucene's variant (accurate lengths, no factor k1 + 1):

        Σ_w asked_w · idf(w) · found_w / (found_w + k1 · (1 - b + b · length / mean_length))
        idf(w) = log(1 + (documents - df_w + 1/2) / (df_w + 1/2))

    Over the query's different words w. The same numbers as `bm25s` with method "lucene", for pairs
    of any query and any document: the document need not be in the corpus. 0 where no word is found.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; the variant in
    Kamphuis et al., "Which BM25 do you mean?", 2020, table 1.
    """
    idf = statistics.idf(matches.vocabulary)[matches.word]
    mean = statistics.mean_length or 1.0
    norm = k1 * (1 - b + b * matches.lengths / mean)[matches.pair]
    # b = 1 and an empty document make norm 0
    weight = matches.found / np.maximum(matches.found + norm, 1e-12)
    return matches.total(matches.asked * idf * weight)
