"""A made-up shop with queries, rule-made labels and planted noise, all from one seed."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sie_jax.data import splitting
from sie_jax.data.schema import ESCI_SCALE, RAW_SCHEMA, Source, normalise_query
from sie_jax.data.sources.market import dirt as soiling
from sie_jax.data.sources.market import noise as mislabelling
from sie_jax.data.sources.market.queries import misspelt
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.data.sources.shop import ACCESSORY_MAKERS, CATEGORIES, FILLERS, Category, Value
from sie_jax.errors import UserError

IRRELEVANT, COMPLEMENT, SUBSTITUTE, EXACT = range(4)
MAX_QUERIES = 20_000  # the shop's words make some times more different ones

_NOUN_WORDS = {word for category in CATEGORIES for noun in category.nouns for word in noun.split()}
# Brand, colour, feature, size: how many values each has in every category of the shop.
_ATTRIBUTES = 4
_VALUES = (5, 5, 4, 4)
# Wanted shares of I, C, S, E, and how alike the queries are in them (Dirichlet concentration).
_MIX = np.array([0.18, 0.12, 0.23, 0.47])
_MIX_CONCENTRATION = 12.0
_CONSTRAINTS = (0.35, 0.5, 0.15)  # chance of 1, 2, 3 constraints
_ATTRIBUTE_HIDDEN = 0.04  # from the title; the text names it if there is a text
_TEXT_MISSING = 0.15
_NEAR_DUPLICATES = 0.1


@dataclasses.dataclass(slots=True, kw_only=True)
class SyntheticConfig(SourceSection):
    """The generated shop: its size, the rate of wrong labels, the rate of dirty rows, the seed."""

    queries: int = 400  # the number of queries
    items_per_query: int = 20  # pairs of each query
    noise: float = 0.2  # share of the training and validation labels that are wrong
    noise_kind: str = "uniform"  # which labels those are (docs/wrong_labels.md)
    dirt: float = 0.02  # share of rows that break a rule of cleaning
    seed: int = 0  # another seed makes another shop

    def read(self, request: Request) -> Source:
        """The shop, with the splits of `request`."""
        return read(**dataclasses.asdict(self), validation=request.validation, test=request.test)


def read(
    *,
    queries: int = 400,
    items_per_query: int = 20,
    noise: float = 0.2,
    noise_kind: str = "uniform",
    dirt: float = 0.02,
    typos: float = 0.05,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Source:
    """A shop of ten categories, judged on the scale I, C, S, E; the same arguments, the same bits.

    A product has a category, brand, colour, feature and size. A query asks for a category with one
    to three attribute values. The labels follow a rule on the item's true attributes:

        E  the category asked for, and all values asked for
        S  the category asked for, and some value broken
        C  an accessory that fits the category asked for
        I  everything else

    Args:
      queries: number of queries, 3..MAX_QUERIES; no two are equal under `normalise_query`.
      items_per_query: a query has between four fifths of this and this many items, 1..200.
      noise: expected share of the rows of train and validation whose label is changed, in [0, 1].
        The draws of different rates are nested: what 0.1 flips, 0.2 flips too, to the same label.
      noise_kind: which rows are relabelled, and how: a kind of `market.noise.relabel`. The weak
        model of "confusion" sees the quarter of the query's words that the title has and whether a
        noun is among them.
      dirt: expected share of rows that get one defect of `market.dirt.KINDS`, in [0, 1], each as
        likely. A duplicate or a conflict is a further row at the end of the table.
      typos: probability that a query word of four or more letters has two letters swapped, one
        dropped or one doubled, in [0, 1]. Titles have none.
      validation, test: share of the queries in these splits, > 0 and with a sum < 1; every split
        has at least one query.
      seed: >= 0. Texts do not depend on `noise` or `dirt`.

    Returns:
      Source with a table of RAW_SCHEMA. `truth` is the rule's label, in every row. An attribute is
      missing from an item's title now and then, and some items have an empty text. A tenth of the
      items are near-duplicates: another item's product under a slightly different title. Items
      appear under several queries.

    Raises:
      UserError: an argument is out of its range, or `noise` is above what its kind can reach.
    """
    _check(queries, items_per_query, noise, noise_kind, dirt, typos, validation, test, seed)
    # One stream per concern, so that changing the noise or the dirt leaves the texts as they are.
    shop_rng, query_rng, judge_rng, text_rng, split_rng, noise_rng, dirt_rng = (
        np.random.default_rng([seed, stream]) for stream in range(7)
    )
    shop = _Shop(shop_rng, products=max(700, 40 * items_per_query))
    wanted, texts = _queries(query_rng, queries, typos)
    split = splitting.drawn(split_rng, queries, validation=validation, test=test)

    query_of_row, item_of_row, truth = _judge(judge_rng, shop, wanted, items_per_query)
    titles, descriptions = shop.describe(text_rng, item_of_row)
    query_texts = [texts[query] for query in query_of_row.tolist()]
    item_titles = [titles[item] for item in item_of_row.tolist()]
    split_of_row = split[query_of_row]

    label = mislabelling.relabel(
        noise_rng,
        mislabelling.Judged(
            truth, query_of_row, _seen(query_texts, item_titles), split_of_row != "test"
        ),
        noise_kind,
        noise,
    )

    names = np.array(ESCI_SCALE.names)
    columns: dict[str, list[str | None]] = {
        "query_id": [f"q{query}" for query in query_of_row.tolist()],
        "query": [*query_texts],
        "item_id": [f"i{item}" for item in item_of_row.tolist()],
        "title": [*item_titles],
        "text": [descriptions[item] for item in item_of_row.tolist()],
        "label": names[label].tolist(),
        "split": split_of_row.tolist(),
        "truth": names[truth].tolist(),
    }
    soiling.soil(dirt_rng, columns, dirt)
    columns["example_id"] = [str(row) for row in range(len(columns["query"]))]
    table = pa.table({name: columns[name] for name in RAW_SCHEMA.names}, schema=RAW_SCHEMA)
    return Source(table=table, scale=ESCI_SCALE, location=f"synthetic shop, seed {seed}")


def _check(
    queries: int,
    items_per_query: int,
    noise: float,
    noise_kind: str,
    dirt: float,
    typos: float,
    validation: float,
    test: float,
    seed: int,
) -> None:
    if not 3 <= queries <= MAX_QUERIES:
        raise UserError(f"synthetic: queries is {queries}; give 3 to {MAX_QUERIES}")
    if not 1 <= items_per_query <= 200:
        raise UserError(f"synthetic: items_per_query is {items_per_query}; give 1 to 200")
    for name, rate in (("noise", noise), ("dirt", dirt), ("typos", typos)):
        if not 0 <= rate <= 1:
            raise UserError(f"synthetic: {name} is {rate}; give a rate between 0 and 1")
    if noise_kind not in mislabelling.KINDS:
        raise UserError(
            f"synthetic: noise_kind is {noise_kind!r}; give one of {', '.join(mislabelling.KINDS)}"
        )
    splitting.check_shares(validation, test)
    if seed < 0:
        raise UserError(f"synthetic: seed is {seed}; give 0 or more")


class _Shop:
    """The items: products of each category, then the accessories of each category.

    category [I] int: a product's category, or the category that an accessory fits.
    accessory [I] int: which of the category's accessories it is, -1 for a product.
    attributes [I, 4] int: brand, colour, feature, size; accessories have a colour alone.
    original [I] int: the item this one nearly duplicates, itself where it is none.
    """

    def __init__(self, rng: np.random.Generator, products: int):
        accessories = products // 5
        each = products + accessories
        self.category = np.repeat(np.arange(len(CATEGORIES)), each)
        size = len(self.category)
        is_product = np.tile(np.arange(each) < products, len(CATEGORIES))
        self.accessory = np.where(is_product, -1, rng.integers(4, size=size))
        self.attributes = rng.integers(_VALUES, size=(size, _ATTRIBUTES))
        # A near-duplicate follows its original directly, so it must not begin a category or its
        # accessories, nor follow another near-duplicate.
        index = np.arange(size)
        may = (index % each != 0) & (index % each != products) & (index % 2 == 1)
        self.original = index - (may & (rng.random(size) < 2 * _NEAR_DUPLICATES))
        self.accessory = self.accessory[self.original]
        self.attributes = self.attributes[self.original]

    def describe(
        self, rng: np.random.Generator, items: np.ndarray
    ) -> tuple[dict[int, str], dict[int, str]]:
        """The titles and the texts of these items, by item."""
        titles: dict[int, str] = {}
        texts: dict[int, str] = {}
        # Originals too, judged or not: their near-duplicates' titles are made from theirs.
        for item in np.unique(np.concatenate([items, self.original[items]])).tolist():
            original = int(self.original[item])
            if original != item:
                titles[item] = _reworded(rng, titles[original])
                texts[item] = texts[original]
                continue
            category = CATEGORIES[self.category[item]]
            if self.accessory[item] >= 0:
                thing = category.accessories[self.accessory[item]]
                colour = category.colours[self.attributes[item, 1]]
                titles[item], texts[item] = _accessory_texts(rng, category, thing, colour)
            else:
                titles[item], texts[item] = _product_texts(rng, category, self.attributes[item])
        return titles, texts


def _product_texts(
    rng: np.random.Generator, category: Category, attributes: np.ndarray
) -> tuple[str, str]:
    values = [kind[value] for kind, value in zip(_kinds(category), attributes, strict=True)]
    shown = rng.random(_ATTRIBUTES) >= _ATTRIBUTE_HIDDEN
    brand, colour, feature, size = (
        _said(rng, value) if show else "" for value, show in zip(values, shown, strict=True)
    )
    noun, filler = _said(rng, category.nouns), _any(rng, FILLERS)
    order = rng.integers(3)
    if order == 0:
        parts = [brand, colour, feature, noun, size, filler]
    elif order == 1:
        parts = [filler, brand, feature, noun, size, colour]
    else:
        parts = [brand, size, noun, filler, feature, "in" if colour else "", colour]
    text = f"{noun} by {_said(rng, values[0])}, {_said(rng, values[1])}, {_said(rng, values[2])}, "
    text += _said(rng, values[3])
    return " ".join(filter(None, parts)), "" if rng.random() < _TEXT_MISSING else text


def _accessory_texts(
    rng: np.random.Generator, category: Category, thing: str, colour: Value
) -> tuple[str, str]:
    maker, noun, filler = (
        _any(rng, ACCESSORY_MAKERS),
        _said(rng, category.nouns),
        _any(rng, FILLERS),
    )
    if rng.random() < 0.5:
        title = f"{maker} {_said(rng, colour)} {thing} for {noun} {filler}"
    else:
        title = f"{filler} {thing} for {noun} by {maker} {_said(rng, colour)}"
    text = f"{thing} that fits a {noun}"
    return title, "" if rng.random() < _TEXT_MISSING else text


def _reworded(rng: np.random.Generator, title: str) -> str:
    """The title with one filler word for another, or one more."""
    words = title.split()
    fillers = [place for place, word in enumerate(words) if word in FILLERS]
    other = _any(rng, [word for word in FILLERS if word not in words])
    if fillers and rng.random() < 0.5:
        words[fillers[0]] = other
    else:
        words.insert(0, other)
    return " ".join(words)


def _kinds(category: Category) -> tuple[tuple[Value, ...], ...]:
    return category.brands, category.colours, category.features, category.sizes


def _any(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _said(rng: np.random.Generator, value: Value) -> str:
    """The common way to say it in two cases of three, else any way."""
    if len(value) == 1:
        return value[0]
    return value[0] if rng.random() < 2 / 3 else _any(rng, value)


def _queries(
    rng: np.random.Generator, queries: int, typos: float
) -> tuple[list[tuple[int, np.ndarray]], list[str]]:
    """What each query asks for (category, attributes [4] with -1 for any), and its words."""
    wanted: list[tuple[int, np.ndarray]] = []
    texts: list[str] = []
    seen: set[str] = set()
    while len(texts) < queries:
        category = int(rng.integers(len(CATEGORIES)))
        asked = rng.permutation(_ATTRIBUTES)[: 1 + rng.choice(3, p=_CONSTRAINTS)]
        attributes = np.full(_ATTRIBUTES, -1)
        attributes[asked] = rng.integers(np.array(_VALUES)[asked])
        text = _query_text(rng, CATEGORIES[category], attributes, typos)
        if normalise_query(text) in seen:
            continue
        seen.add(normalise_query(text))
        wanted.append((category, attributes))
        texts.append(text)
    return wanted, texts


def _query_text(
    rng: np.random.Generator, category: Category, attributes: np.ndarray, typos: float
) -> str:
    brand, colour, feature, size = (
        _said(rng, kind[value]) if value >= 0 else ""
        for kind, value in zip(_kinds(category), attributes, strict=True)
    )
    noun = _said(rng, category.nouns)
    order = rng.integers(4)
    if order == 0:
        parts = [noun, brand, size, feature, colour]
    elif order == 1:
        parts = [brand, feature, noun, size, "in" if colour else "", colour]
    else:
        parts = [colour, brand, feature, noun, size]
    words = " ".join(filter(None, parts)).split()
    wrong = rng.random(len(words)) < typos
    return " ".join(
        misspelt(rng, word) if mistake and len(word) >= 4 and word.isalpha() else word
        for word, mistake in zip(words, wrong, strict=True)
    )


def _judge(
    rng: np.random.Generator, shop: _Shop, wanted: list[tuple[int, np.ndarray]], items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The judged pairs: query [N], item [N], and the rule's label [N]."""
    is_product = shop.accessory < 0
    everything = np.arange(len(shop.category))
    inside = [np.flatnonzero(shop.category == c) for c in range(len(CATEGORIES))]
    query_of_row, item_of_row, truth = [], [], []
    for query, (category, attributes) in enumerate(wanted):
        near = inside[category]
        met = np.all((attributes < 0) | (shop.attributes[near] == attributes), axis=1)
        labels_near = np.where(is_product[near], np.where(met, EXACT, SUBSTITUTE), COMPLEMENT)
        count = int(rng.integers(-(-4 * items // 5), items + 1))
        shares = rng.multinomial(count, rng.dirichlet(_MIX_CONCENTRATION * _MIX))
        pools = [near[labels_near == label] for label in (COMPLEMENT, SUBSTITUTE, EXACT)]
        # A narrow query has few exact items: the items that lack are substitutes then.
        lacking = max(0, shares[EXACT] - len(pools[2]))
        shares[EXACT] -= lacking
        shares[SUBSTITUTE] += lacking
        chosen = [
            rng.choice(pool, size=shares[label], replace=False)
            for label, pool in zip((COMPLEMENT, SUBSTITUTE, EXACT), pools, strict=True)
        ]
        # The rest of the shop: its places, with this category's own cut out.
        others = rng.choice(len(everything) - len(near), size=shares[IRRELEVANT], replace=False)
        chosen.insert(0, others + len(near) * (others >= near[0]))
        labels = np.repeat(np.arange(4), [len(part) for part in chosen])
        order = rng.permutation(count)
        query_of_row.append(np.full(count, query))
        item_of_row.append(np.concatenate(chosen)[order])
        truth.append(labels[order])
    return np.concatenate(query_of_row), np.concatenate(item_of_row), np.concatenate(truth)


def _seen(queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    """The cell [N] of a row: quarters of the query's words found, and whether a noun is one."""
    cells = []
    for query, title in zip(queries, titles, strict=True):
        words = set(query.split())
        found = words & set(title.split())
        cells.append(2 * (4 * len(found) // len(words)) + (not found.isdisjoint(_NOUN_WORDS)))
    return np.array(cells)
