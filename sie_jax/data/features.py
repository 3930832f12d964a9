"""Lexical and structured features of query–item pairs, standardised within the query."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int

from sie_jax.data import lexical
from sie_jax.data.feedback import feedback
from sie_jax.data.lexical import CorpusStatistics
from sie_jax.data.schema import ATTRIBUTE

# In this order, before FEEDBACK, one `attribute:NAME` per attribute, and the numeric columns.
LEXICAL = (
    "bm25_title",
    "bm25_text",
    "overlap_title",
    "overlap_text",
    "all_words",
    "phrase",
    "first_word",
    "last_word",
    "quantities",
    "title_length",
    "text_length",
)

RUN = "run:"
"""What the names of scores begin with that stand beside features."""
COSINE, COSINE_TEXT = "cosine", "cosine_text"
"""The columns with the cosine of query and title, and of query and title with further text, under
the checkpoint, where there is one."""
CHECKPOINTS = {"checkpoint": COSINE, "checkpoint_text": COSINE_TEXT}
"""The baselines that are one of these columns."""
FEEDBACK = "feedback"
"""The feature that compares the items of a query with each other (`feedback`)."""

# Pairs whose texts are split into words at a time; it bounds memory.
CHUNK = 65_536

# What counts as constant within a query: a range of at most this share of the largest value. The
# cosine of equal texts differs by rounding, and standardised it would be noise of variance 1.
_CONSTANT = 1e-6


def is_own(name: str) -> bool:
    """Whether no column of a user may have this name as a feature.

    It is that of a feature made here, or of what stands beside features where they are stored, or
    of a column of the stack.
    """
    own = (*LEXICAL, FEEDBACK, COSINE, COSINE_TEXT, "example_id", "split")
    return name in own or name.startswith((ATTRIBUTE, RUN))


@dataclass(frozen=True)
class Pairs:
    """N query–item pairs, all those of a query that are to be ranked against each other.

    queries, titles, texts: the texts; a missing title or text is "".
    query_ids: which pairs belong to one query.
    attributes: texts by name, such as brand and colour; "" where an item has none.
    numeric: further columns by name, such as the checkpoint's cosine or a price.
    """

    queries: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    query_ids: Sequence[str] | np.ndarray
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numeric: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the features that are a pair's own, in their order."""
        return (*LEXICAL, *(f"attribute:{name}" for name in self.attributes), *self.numeric)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all features, in their order."""
        return (*LEXICAL, FEEDBACK, *self.columns[len(LEXICAL) :])


@dataclass(frozen=True)
class Features:
    """Features `values[i, j]` of pair i, of which `names[j]` says what they are."""

    names: tuple[str, ...]
    values: Float32[np.ndarray, "N F"]


def standardised(pairs: Pairs, statistics: CorpusStatistics) -> Features:
    """The features of `raw` and `feedback_of`, standardised within the query by `standardise`.

    They depend on the pair's texts and columns, on the other pairs of the query, and on the corpus
    statistics. They do not depend on labels, on other queries or on the order of the rows, so they
    are the same whenever the same query comes with the same items.
    """
    query_index = np.unique(np.asarray(pairs.query_ids, str), return_inverse=True)[1]
    own = standardise(raw(pairs, statistics), query_index)
    columns = dict(zip(pairs.columns, own.T, strict=True))
    columns[FEEDBACK] = feedback_of(pairs.titles, columns, query_index, statistics)
    values = np.empty((len(own), len(pairs.names)), np.float32)
    for at, name in enumerate(pairs.names):
        values[:, at] = columns[name]
    return Features(pairs.names, values)


def feedback_of(
    titles: Sequence[str],
    columns: Mapping[str, Float32[np.ndarray, "N"]],
    query_index: Int[np.ndarray, "N"],
    statistics: CorpusStatistics,
) -> Float32[np.ndarray, "N"]:
    """The feature FEEDBACK, standardised within the query.

    columns: the others so. The first score is the cosine of query and title, or BM25 of the title
    where there is no checkpoint.
    """
    first = columns[COSINE] if COSINE in columns else columns["bm25_title"]
    found = feedback(titles, first, query_index, statistics.title)
    return standardise(found[:, None], query_index)[:, 0]


def standardise(
    values: Float64[np.ndarray, "N F"], query_index: Int[np.ndarray, "N"]
) -> Float32[np.ndarray, "N F"]:
    """(x - mean) / deviation of each feature over the pairs of the query, population form.

    NaN and infinite values count as missing: they are left out of mean and deviation and become 0,
    the query's mean. A feature that is constant within the query (a range of at most 1e-6 of its
    largest magnitude), or missing for all of its pairs, is 0 there.
    """
    queries = int(query_index.max()) + 1 if len(query_index) else 0
    result = np.empty(values.shape, np.float32)
    for at, column in enumerate(np.asarray(values, np.float64).T):
        known = np.isfinite(column)
        largest = np.zeros(queries)
        np.maximum.at(largest, query_index[known], np.abs(column[known]))
        # the squares of such numbers are no floats; 1 leaves others as they are to the last bit
        extreme = (largest > 1e100) | (largest > 0) & (largest < 1e-100)
        column = column / np.where(extreme, largest, 1.0)[query_index]
        of, x = query_index[known], column[known]
        lowest, highest = np.full(queries, np.inf), np.full(queries, -np.inf)
        np.minimum.at(lowest, of, x)
        np.maximum.at(highest, of, x)
        varies = highest - lowest > _CONSTANT * np.maximum(np.abs(lowest), np.abs(highest))
        count = np.maximum(np.bincount(of, minlength=queries), 1)
        mean = np.bincount(of, weights=x, minlength=queries) / count
        centred = np.where(known, column, mean[query_index]) - mean[query_index]
        variance = np.bincount(query_index, weights=centred**2, minlength=queries) / count
        deviation = np.sqrt(np.where(varies, variance, 1.0))
        result[:, at] = np.where(varies[query_index], centred / deviation[query_index], 0.0)
    return result


def blended(
    scores: Sequence[Float64[np.ndarray, "N"]], query_index: Int[np.ndarray, "N"]
) -> Float64[np.ndarray, "N"]:
    """The sum of several rankers' scores of each pair, each standardised within the query."""
    return standardise(np.stack(scores, 1), query_index).astype(np.float64).sum(1)


def raw(pairs: Pairs, statistics: CorpusStatistics) -> Float64[np.ndarray, "N F"]:
    """The features of each pair before they are standardised, in the order of `pairs.columns`.

    Words are those of `lexical.words`.

        bm25_title, bm25_text        `lexical.bm25` in the title and in the further text
        overlap_title, overlap_text  share of the query's words that are in the title; in either
        all_words                    1 if the title has all of the query's words
        phrase                       1 if it has them next to each other and in the query's order
        first_word, last_word        1 if it has the query's first, last word
        quantities                   share of the query's numbers that title or text has, see
                                     `quantities`; NaN for a query without numbers
        title_length, text_length    log(1 + number of words)
        attribute:NAME               share of the attribute's words that the query has; NaN without
        numeric columns              as they are

    Raises:
      ValueError: columns of different lengths.
    """
    lengths = [len(column) for column in (pairs.titles, pairs.texts, *pairs.attributes.values())]
    lengths += [len(column) for column in pairs.numeric.values()]
    if any(length != len(pairs.queries) for length in lengths):
        raise ValueError(f"there are {len(pairs.queries)} queries: give as many of all columns")
    starts = range(0, len(pairs.queries), CHUNK)
    parts = [_chunk(pairs, statistics, slice(start, start + CHUNK)) for start in starts]
    values = np.concatenate([np.empty((0, len(LEXICAL) + len(pairs.attributes))), *parts])
    numeric = [np.asarray(column, np.float64)[:, None] for column in pairs.numeric.values()]
    return np.concatenate([values, *numeric], axis=1)


def _chunk(pairs: Pairs, statistics: CorpusStatistics, rows: slice) -> np.ndarray:
    """The lexical features and the attributes of some rows."""
    query_texts, titles, texts = pairs.queries[rows], pairs.titles[rows], pairs.texts[rows]
    queries, in_titles, in_texts = map(lexical.split_all, (query_texts, titles, texts))
    title = lexical.match(queries, in_titles)
    text = lexical.match(queries, in_texts)
    either = text._replace(found=title.found + text.found)
    overlap = title.overlap()
    columns = {
        "bm25_title": lexical.bm25(title, statistics.title),
        "bm25_text": lexical.bm25(text, statistics.text),
        "overlap_title": overlap,
        "overlap_text": either.overlap(),
        "all_words": overlap == 1,
        "phrase": _phrase(queries, in_titles),
        "first_word": _edge(title, first=True),
        "last_word": _edge(title, first=False),
        "quantities": _quantities(query_texts, titles, texts),
        "title_length": np.log1p(title.lengths),
        "text_length": np.log1p(text.lengths),
    }
    assert tuple(columns) == LEXICAL
    attributes = [_attribute(column[rows], queries) for column in pairs.attributes.values()]
    return np.stack([*columns.values(), *attributes], axis=1).astype(np.float64)


def _phrase(queries: lexical.Texts, titles: lexical.Texts) -> np.ndarray:
    """Whether the query's words stand in the title, next to each other and in order."""
    wanted, given = ([f" {' '.join(one)} " for one in side.words] for side in (queries, titles))
    return np.fromiter(
        (
            len(wanted[query]) > 2 and wanted[query] in given[title]
            for query, title in zip(queries.place, titles.place, strict=True)
        ),
        bool,
        len(queries.place),
    )


def _edge(matches: lexical.Matches, *, first: bool) -> np.ndarray:
    """Whether the document has the query's first or last different word."""
    result = np.zeros(len(matches.lengths), bool)
    change = np.flatnonzero(np.diff(matches.pair)) + 1
    if len(matches.pair):
        at = np.append(0, change) if first else np.append(change - 1, len(matches.pair) - 1)
        result[matches.pair[at]] = matches.found[at] > 0
    return result


def _attribute(values: Sequence[str], queries: lexical.Texts) -> np.ndarray:
    """The share of the attribute's words that the query has; NaN where it has no words."""
    matches = lexical.match(lexical.split_all(values), queries)
    asked = matches.total(np.ones(len(matches.pair)))
    return np.where(asked > 0, matches.overlap(), np.nan)


# Spellings of a unit; a number followed by anything else has no unit.
_UNITS = {
    "in": ("inch", "inches", '"', "”", "″", "in"),
    "ft": ("foot", "feet", "ft", "'", "′"),
    "yd": ("yard", "yards", "yd"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "oz": ("oz", "ounce", "ounces"),
    "lb": ("lb", "lbs", "pound", "pounds"),
    "g": ("g", "gr", "gram", "grams", "gramm"),
    "kg": ("kg", "kilo", "kilos", "kilogram", "kilograms"),
    "ml": ("ml", "milliliter", "milliliters", "millilitre", "millilitres"),
    "l": ("l", "liter", "liters", "litre", "litres"),
    "gal": ("gal", "gallon", "gallons"),
    "qt": ("qt", "quart", "quarts"),
    "mb": ("mb",),
    "gb": ("gb", "gig", "gigs"),
    "tb": ("tb",),
    "mhz": ("mhz",),
    "ghz": ("ghz",),
    "hz": ("hz",),
    "mah": ("mah",),
    "w": ("w", "watt", "watts"),
    "v": ("v", "volt", "volts"),
    "a": ("a", "amp", "amps"),
    "mp": ("mp", "megapixel", "megapixels"),
    "%": ("%", "percent"),
    "x": ("x",),
    "pack": ("pack", "packs", "pk", "count", "ct", "pcs", "piece", "pieces", "set"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
_QUANTITY = re.compile(
    r"(?<![\w.,])(?<!\w-)"  # not inside a word or another number, nor in "wh-1000"
    r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?)"
    r"(?:[ -]?([^\W\d_]+(?!\w)|[\"”″'′%])|(?!\w|[.,]\d))"
)


def quantities(text: str) -> set[tuple[float, str]]:
    """The numbers in a text, each with its unit, or with "" where no known unit follows.

    >>> sorted(quantities('Monitor 24", 2x HDMI, 1,000 hours, 1.50 m cable, 16-GB'))
    [(1.5, 'm'), (2.0, 'x'), (16.0, 'gb'), (24.0, 'in'), (1000.0, '')]
    """
    if not any(character.isdigit() for character in text):
        return set()
    return {
        (_number(number), _UNIT_OF.get(unit, ""))
        for number, unit in _QUANTITY.findall(text.casefold())
    }


def _number(text: str) -> float:
    """A comma before three digits separates thousands; before others it is a decimal point."""
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        return float(text.replace(",", ""))
    return float(text.replace(",", "."))


def _quantities(queries: Sequence[str], titles: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """The share of each query's quantities that title or text has; NaN without any.

    A unit counts where both sides have one: "16" is found in "16 gb", but "16 gb" not in "16 oz".
    """
    asked = {query: quantities(query) for query in set(queries)}
    result = np.full(len(queries), np.nan)
    for row, (query, title, text) in enumerate(zip(queries, titles, texts, strict=True)):
        if asked[query]:
            given = quantities(title) | quantities(text)
            found = (
                any(number == n and (unit == u or not (unit and u)) for n, u in given)
                for number, unit in asked[query]
            )
            result[row] = sum(found) / len(asked[query])
    return result
