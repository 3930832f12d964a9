"""A cheap model of the labels of a generated shop: trees on features of the words, in folds."""

from dataclasses import dataclass
from typing import NamedTuple

import lightgbm
import numpy as np

from sie_jax.data import features, folds, lexical, translation
from sie_jax.data.schema import ATTRIBUTE, ESCI_SCALE, Source
from sie_jax.data.sources import synthetic
from sie_jax.data.sources.market import market
from sie_jax.evaluation import ranking
from sie_jax.evaluation.predictions import expected_gains

QUERIES, ITEMS, FOLDS, ROUNDS = 1000, 4000, 4, 120
CLASSES = len(ESCI_SCALE.names)
VIEWS = ("all", "words", "nothing")
"""What the model sees: all features, the shares of the query's words alone, or random numbers."""
# what a translation learns from: the best items, or all of the class asked for
_TAUGHT = ((0.0, 0.0, 0.1, 1.0), (0.0, 0.0, 1.0, 1.0))
_TREES = {
    "objective": "multiclass",
    "num_class": CLASSES,
    "learning_rate": 0.08,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


class Setting(NamedTuple):
    """Which shop, of which seed, with which wrong labels; and what the model may see of it."""

    shop: str
    kind: str
    noise: float
    seed: int
    view: str = "all"
    queries: int = QUERIES
    test: float = 0.2
    """The share of the queries that are tested, and do not teach."""

    @property
    def name(self) -> str:
        """As a file is called."""
        shop = f"{self.shop}-{self.queries}-{self.test:g}"
        return f"{shop}-{self.kind}-{self.noise:g}-{self.seed}-{self.view}"


@dataclass(frozen=True)
class Shop:
    """The N pairs of a shop: texts, features, labels, truth, and which are tested.

    query [N] int: the query of each pair. label, truth [N] int. tested [N] bool: the test split,
    whose labels are right. fold [N] int: of the other queries. own [N, F]: features that depend on
    no label.
    """

    queries: list[str]
    items: list[str]
    query: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    tested: np.ndarray
    fold: np.ndarray
    own: np.ndarray
    view: str


def shop(setting: Setting) -> Shop:
    """The shop of a setting."""
    source = _source(setting)
    table = source.table
    columns = {name: [one or "" for one in table[name].to_pylist()] for name in table.column_names}
    texts = translation.item_texts(columns["title"], columns["text"])
    grades = {name: place for place, name in enumerate(ESCI_SCALE.names)}
    label, truth = (np.array([grades[one] for one in columns[of]]) for of in ("label", "truth"))
    query = np.unique(columns["query_id"], return_inverse=True)[1]
    attributes = {
        name.removeprefix(ATTRIBUTE): columns[name]
        for name in columns
        if name.startswith(ATTRIBUTE)
    }
    pairs = features.Pairs(
        columns["query"], columns["title"], columns["text"], columns["query_id"], attributes
    )
    known = source.catalogue if source.catalogue.num_rows else table
    statistics = lexical.CorpusStatistics(
        *(lexical.count(known[name].to_pylist()) for name in ("title", "text"))
    )
    raw = features.raw(pairs, statistics)
    if setting.view == "words":
        own = raw[:, [features.LEXICAL.index(f"overlap_{of}") for of in ("title", "text")]]
    elif setting.view == "nothing":
        own = np.random.default_rng(setting.seed).normal(size=(len(query), 5))
    else:
        own = np.concatenate([features.standardised(pairs, statistics).values, raw], 1)
    tested = np.array(columns["split"]) == "test"
    fold = np.full(len(query), -1)
    learnt = np.array(columns["query_id"])[~tested]
    fold[~tested] = folds.assign(learnt.tolist(), folds=FOLDS, seed=0)
    return Shop(columns["query"], texts, query, label, truth, tested, fold, own, setting.view)


def _source(setting: Setting) -> Source:
    if setting.shop == "synthetic":
        return synthetic.read(
            queries=setting.queries,
            test=setting.test,
            dirt=0.0,
            noise=setting.noise,
            noise_kind=setting.kind,
            seed=setting.seed,
        )
    config = market.MarketConfig(
        queries=setting.queries,
        items=ITEMS,
        noise=setting.noise,
        noise_kind=setting.kind,
        seed=setting.seed,
    )
    return market.generate(config, test=setting.test).source


def out_of_fold(made: Shop, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities [M, K] of the pairs that are not tested, by models without their queries.

    And the places [M] of these pairs.
    """
    rows = np.flatnonzero(~made.tested)
    fold = made.fold[rows]
    found = np.zeros((len(rows), CLASSES))
    for number in range(FOLDS):
        inside = fold == number
        found[inside] = fitted(made, label, rows[~inside], rows[inside])
    return found, rows


def fitted(made: Shop, label: np.ndarray, learnt: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The probabilities of the pairs `asked` by a model of the pairs `learnt` and their labels."""
    x, y = made.own[learnt], made.own[asked]
    if made.view == "all":
        words = np.zeros((len(learnt), len(_TAUGHT)))
        fold = made.fold[learnt]
        for number in np.unique(fold):  # a pair's own label has no part in its feature
            inside = fold == number
            words[inside] = _translated(made, label, learnt[~inside], learnt[inside])
        x = _with_words(made, x, words, learnt)
        y = _with_words(made, y, _translated(made, label, learnt, asked), asked)
    trees = lightgbm.train(_TREES, lightgbm.Dataset(x, label[learnt]), ROUNDS)
    found = np.asarray(trees.predict(y, num_threads=1))
    return found / found.sum(1, keepdims=True)


def ndcg(made: Shop, label: np.ndarray) -> float:
    """nDCG@10 on the test queries of a model that learns these labels of all other pairs."""
    rows = np.flatnonzero(made.tested)
    scores = expected_gains(
        fitted(made, label, np.flatnonzero(~made.tested), rows), ESCI_SCALE.gains
    )
    query = np.unique(made.query[rows], return_inverse=True)[1]
    found = ranking.per_query(
        scores,
        made.truth[rows],
        gains=ESCI_SCALE.gains,
        query_index=query,
        num_queries=int(query.max()) + 1,
        example_ids=rows,
    )
    return float(np.nanmean(found["ndcg@10"]))


def _translated(made: Shop, label: np.ndarray, learnt: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Two features [M, 2]: how well the words of each item stand for those of its query."""
    queries, items = ([side[row] for row in learnt] for side in (made.queries, made.items))
    wanted = [[side[row] for row in asked] for side in (made.queries, made.items)]
    found = [
        translation.learn(queries, items, np.array(gains)[label[learnt]]).scores(*wanted)
        for gains in _TAUGHT
    ]
    return np.stack(found, 1)


def _with_words(made: Shop, own: np.ndarray, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
    query = np.unique(made.query[rows], return_inverse=True)[1]
    return np.concatenate([own, words, features.standardise(words, query)], 1)
