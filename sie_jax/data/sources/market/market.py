"""The generated shop as a source: its settings, its judged pairs, and the truth behind them."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sie_jax import sections
from sie_jax.data import splitting
from sie_jax.data.schema import (
    ATTRIBUTE,
    CATALOGUE_SCHEMA,
    COMPLETE_SCHEMA,
    ESCI_SCALE,
    RAW_SCHEMA,
    Source,
    normalise_query,
)
from sie_jax.data.sources.market import candidates, dirt, items, needs, noise, ontology, queries
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError

MAX_QUERIES = 200_000
_SCHEMA = pa.schema(
    [*RAW_SCHEMA, *((ATTRIBUTE + name, pa.string()) for name in ("brand", "category"))]
)
_TRIES = 50  # for a query text that no other query has


@dataclass(slots=True, kw_only=True)
class MarketConfig(SourceSection):
    """The generated shop: its size, how far apart its speakers' words are, and what is wrong."""

    queries: int = 1500  # the number of queries, all splits together
    items: int = 6000  # the size of the catalogue
    candidates: int = 20  # pairs of each query, at most; four fifths of this at least
    gap: float = 0.1  # how far customers' words are from sellers': 0 alike, 1 opposite habits
    typos: float = 0.02  # chance that a word of a query is misspelt
    second_language: float = 0.06  # share of queries, and of titles, in the second language
    noise: float = 0.0  # share of the training and validation labels that are wrong
    noise_kind: str = "uniform"  # which labels those are
    dirt: float = 0.0  # share of rows that break a rule of cleaning
    seed: int = 0  # another seed makes another shop

    def check(self) -> None:
        """Raises UserError for the first value out of its range."""
        sections.between("data.market.queries", self.queries, 3, MAX_QUERIES)
        sections.at_least("data.market.items", self.items, 200)
        sections.between("data.market.candidates", self.candidates, 1, 100)
        for name in ("gap", "typos", "second_language", "noise", "dirt"):
            sections.between(f"data.market.{name}", getattr(self, name), 0, 1)
        if self.noise_kind not in noise.KINDS:
            raise UserError(
                f"data.market.noise_kind is {self.noise_kind!r}; give one of "
                f"{', '.join(noise.KINDS)}"
            )
        sections.at_least("data.market.seed", self.seed, 0)

    def read(self, request: Request) -> Source:
        """The shop, with the splits of `request`."""
        return generate(self, validation=request.validation, test=request.test).source


@dataclass(frozen=True)
class Truth:
    """What a shop's makers know.

    grade [N], score [N]: of each row of the source's table, the rule's grade and the perfect score
      (`needs.judge`): sorted by it, a query's items have an nDCG of 1.
    needs: of each query; the query "q7" has needs[7].
    item [N]: the row's item in the catalogue, query [N]: its query.
    """

    grade: np.ndarray
    score: np.ndarray
    needs: tuple[needs.Need, ...]
    query: np.ndarray
    item: np.ndarray


@dataclass(frozen=True)
class Market:
    """A generated shop: what a trainer may see (`source`), and the rest.

    texts: of each query. titles: of each item of the catalogue.
    """

    source: Source
    truth: Truth
    config: MarketConfig
    ontology: ontology.Ontology
    catalogue: items.Catalogue
    texts: tuple[str, ...]
    titles: tuple[str, ...]


def generate(config: MarketConfig, *, validation: float = 0.1, test: float = 0.2) -> Market:
    """The shop that the settings describe; the same settings, the same bits.

    A customer has a need (`needs`) and words it (`queries`) in other words than sellers use in
    titles (`items`, `ontology`). The judged items of a query are drawn as search engines would
    return them (`candidates`). Labels follow the rule of `needs`, but for a share of wrong ones in
    train and validation (`noise`).

    Args:
      validation, test: shares of the queries, above 0 and with a sum below 1; every split has at
        least one query. For a given number of test queries raise `config.queries`.

    Returns:
      Market. The table of its source has the columns of RAW_SCHEMA and the attributes `brand` and
      `category` (the department). No two queries have the same text under `normalise_query`.

    Raises:
      UserError: a setting is out of its range, or the shop is too small for so many queries.
    """
    config.check()
    splitting.check_shares(validation, test)
    # One stream per concern: changing the noise or the dirt leaves the texts as they are.
    word_rng, item_rng, text_rng, query_rng, pair_rng, split_rng, noise_rng, dirt_rng = (
        np.random.default_rng([config.seed, stream]) for stream in range(8)
    )
    language = ontology.build(word_rng, config.gap)
    catalogue = items.stock(item_rng, language, config.items)
    titles, texts = items.describe(text_rng, language, catalogue, config.second_language)
    wanted, spoken = _queries(query_rng, language, catalogue, config)
    best = candidates.lexical(spoken, titles, config.candidates)
    query, item = candidates.choose(pair_rng, catalogue, wanted, best, config.candidates)
    grade, score = _judge(catalogue, wanted, query, item)
    split = splitting.drawn(split_rng, config.queries, validation=validation, test=test)[query]
    seen = _tenths_found(query, item, spoken, titles)
    label = noise.relabel(
        noise_rng,
        noise.Judged(grade, query, seen, split != "test"),
        config.noise_kind,
        config.noise,
    )

    names = np.array(ESCI_SCALE.names)
    brands = [[brand.ways[0] for brand in department] for department in language.brands]
    categories = [hypernym.ways[0] for hypernym in language.hypernyms]
    department = catalogue.department[item]
    columns: dict[str, list[str | None]] = {
        "query_id": [f"q{one}" for one in query.tolist()],
        "query": [spoken[one] for one in query.tolist()],
        "item_id": [f"i{one}" for one in item.tolist()],
        "title": [titles[one] for one in item.tolist()],
        "text": [texts[one] for one in item.tolist()],
        "label": names[label].tolist(),
        "split": split.tolist(),
        "truth": names[grade].tolist(),
        ATTRIBUTE + "brand": [
            brands[of][one] for of, one in zip(department, catalogue.brand[item], strict=True)
        ],
        ATTRIBUTE + "category": [categories[of] for of in department],
    }
    origin = dirt.soil(dirt_rng, columns, config.dirt)
    columns["example_id"] = [str(row) for row in range(len(origin))]
    source = Source(
        table=pa.table({name: columns[name] for name in _SCHEMA.names}, schema=_SCHEMA),
        scale=ESCI_SCALE,
        location=f"generated market, seed {config.seed}",
        catalogue=pa.table(
            {"item_id": [f"i{one}" for one in range(len(titles))], "title": titles, "text": texts},
            schema=CATALOGUE_SCHEMA,
        ),
        complete=functools.partial(_complete, catalogue, wanted, query[split != "train"]),
    )
    truth = Truth(grade[origin], score[origin], tuple(wanted), query[origin], item[origin])
    return Market(
        source,
        truth,
        dataclasses.replace(config),
        language,
        catalogue,
        tuple(spoken),
        tuple(titles),
    )


def _complete(
    catalogue: items.Catalogue, wanted: Sequence[needs.Need], query: np.ndarray
) -> pa.Table:
    """What every item of the catalogue is to some queries, in COMPLETE_SCHEMA."""
    everything, found = np.arange(len(catalogue)), []
    for one in np.unique(query).tolist():
        grade, _ = needs.judge(catalogue, wanted[one], everything)
        found += [(one, item, grade[item]) for item in np.flatnonzero(grade).tolist()]
    columns = [
        [f"q{one}" for one, _, _ in found],
        [f"i{item}" for _, item, _ in found],
        [ESCI_SCALE.names[grade] for _, _, grade in found],
    ]
    return pa.table(columns, schema=COMPLETE_SCHEMA)


def _queries(
    rng: np.random.Generator,
    language: ontology.Ontology,
    catalogue: items.Catalogue,
    config: MarketConfig,
) -> tuple[list[needs.Need], list[str]]:
    """The needs and their words; needs are met by popular items more often."""
    wanted: list[needs.Need] = []
    texts: list[str] = []
    seen: set[str] = set()
    weights = np.sqrt(catalogue.popularity)
    targets = rng.choice(
        len(catalogue), size=_TRIES * config.queries, p=weights / weights.sum()
    ).tolist()
    for target in targets:
        if len(texts) == config.queries:
            return wanted, texts
        need = needs.draw(rng, language, catalogue, target)
        foreign = bool(rng.random() < config.second_language)
        text = queries.say(rng, language, need, config.typos, foreign)
        if normalise_query(text) not in seen:
            seen.add(normalise_query(text))
            wanted.append(need)
            texts.append(text)
    if len(texts) == config.queries:
        return wanted, texts
    raise UserError(
        f"market: {config.items} items give {len(texts)} different queries, not {config.queries}; "
        "give more items or fewer queries"
    )


def _judge(
    catalogue: items.Catalogue, wanted: list[needs.Need], query: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Grade [N] and perfect score [N] of the pairs."""
    ends = np.cumsum(np.bincount(query, minlength=len(wanted)))[:-1]
    judged = [
        needs.judge(catalogue, need, rows)
        for need, rows in zip(wanted, np.split(item, ends), strict=True)
    ]
    grades, scores = zip(*judged, strict=True)
    return np.concatenate(grades), np.concatenate(scores)


def _tenths_found(
    query: np.ndarray, item: np.ndarray, spoken: list[str], titles: list[str]
) -> np.ndarray:
    """How many tenths [N] of the query's words the title has, 0..10."""
    query_words = [set(re.findall(r"\w+", text)) for text in spoken]
    title_words = [set(re.findall(r"\w+", title)) for title in titles]
    return np.array(
        [
            10 * len(query_words[one] & title_words[other]) // max(len(query_words[one]), 1)
            for one, other in zip(query.tolist(), item.tolist(), strict=True)
        ]
    )
