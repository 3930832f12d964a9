"""The rankers that nested.py compares: each is fitted on four fifths and scores all pairs."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
from nested_encoder import Models

from sie_jax.data import features, folds, lexical
from sie_jax.data.features import CHECKPOINTS, COSINE_TEXT, FEEDBACK, Features, Pairs
from sie_jax.data.schema import LabelScale
from sie_jax.evaluation import baselines, ranking
from sie_jax.evaluation import contest as judging
from sie_jax.models import linear
from sie_jax.models import trees as boosting

INNER = 5
FIRST = "cross_encoder"  # the recipe that every run of this benchmark has
BASELINES = ("random", "token_overlap", "bm25", *CHECKPOINTS)
# LambdaMART's settings to choose among inside; the number of trees is chosen beside them.
LEAVES, LEAST_PAIRS, TREES = (4, 8), (20, 60), (25, 50, 100, 200)


@dataclass(frozen=True)
class Judged:
    """The pairs of a data set, with everything that ranking and testing them needs."""

    table: pa.Table
    scale: LabelScale
    pairs: Pairs
    features: Features
    titles: lexical.FieldStatistics
    query: np.ndarray

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The grade of each pair."""
        return self.table["label"].to_numpy()

    @functools.cached_property
    def gains(self) -> np.ndarray:
        """The gain of each grade."""
        return np.array(self.scale.gains)

    @functools.cached_property
    def unseen(self) -> np.ndarray:
        """Whether each query is of an official test split."""
        test = np.array([split == "test" for split in self.table["split"].to_pylist()])
        return np.bincount(self.query, test) > 0

    @functools.cached_property
    def ties(self) -> np.ndarray:
        """The place of each pair among those of equal score."""
        return ranking.tie_order(self.table["example_id"].to_pylist())

    def ndcg(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """nDCG@10 of every query that has a pair in `rows` (a mask); NaN without a positive gain.

        scores: of all pairs.
        """
        at = np.flatnonzero(np.ones(len(self.labels), bool) if rows is None else rows)
        distinct, query = np.unique(self.query[at], return_inverse=True)
        return ranking.per_query(
            scores[at],
            self.labels[at],
            self.gains,
            query,
            num_queries=len(distinct),
            example_ids=self.ties[at],
        )["ndcg@10"]

    def lists(self) -> linear.Lists:
        """What a listwise ranker learns from."""
        return linear.Lists(self.features.values, self.gains[self.labels], self.query)

    def with_feature(self, name: str, values: np.ndarray) -> "Judged":
        """The same with a further feature, standardised within the query."""
        further = features.standardise(values[:, None], self.query)
        known = self.features
        together = np.concatenate([known.values, further], axis=1)
        return replace(self, features=Features((*known.names, name), together))

    def without_features(self, *left: str) -> "Judged":
        """The same without some features."""
        names = tuple(name for name in self.features.names if name not in left)
        kept = [self.features.names.index(name) for name in names]
        return replace(self, features=Features(names, self.features.values[:, kept]))

    def digest(self) -> str:
        """Stands for the features, the labels and the queries."""
        arrays = (self.features.values, self.labels, self.query)
        content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        return hashlib.blake2b(content).hexdigest()[:12]


@dataclass(frozen=True)
class Task:
    """One outer fold, as a ranker sees it.

    training: a mask of the pairs that may be learnt from. inner: the fold of each of those. outer,
    models: the fold that is left out, and by recipe the models, of which some have not seen it.
    """

    data: Judged
    training: np.ndarray
    inner: np.ndarray
    outer: int
    models: Mapping[str, Models]

    def inside(self) -> "list[Task]":
        """One task for each inner fold, which is left out of what may be learnt from."""
        rows, tasks = np.flatnonzero(self.training), []
        for fold in np.unique(self.inner):
            training = np.zeros_like(self.training)
            training[rows[self.inner != fold]] = True
            tasks.append(replace(self, training=training, inner=self.inner[self.inner != fold]))
        return tasks

    def inner_scores(self, ranker: "Ranker") -> np.ndarray:
        """The scores of the training pairs by rankers that were not fitted on them; others NaN."""
        scores = np.full(len(self.training), np.nan)
        for task in self.inside():
            left_out = self.training & ~task.training
            scores[left_out] = ranker(task)[0][left_out]
        return scores

    def with_encoders(self, *recipes: str, several: bool = False) -> "Task":
        """The same with the scores of encoders for further features."""
        data = self.data
        for recipe in recipes:
            scores = self.models[recipe].nested(self.outer, several=several)
            data = data.with_feature(recipe, scores)
        return replace(self, data=data)


Ranker = Callable[[Task], tuple[np.ndarray, Any]]
"""Gives the scores of all pairs, and what it chose."""


def baseline(data: Judged, name: str, seed: int) -> np.ndarray:
    """The scores of a baseline; only chance depends on the seed."""
    pairs = data.pairs
    if name == "bm25":
        return baselines.bm25(pairs.queries, pairs.titles, data.titles)
    if name in CHECKPOINTS:
        return baselines.current(pairs.numeric[CHECKPOINTS[name]])
    training: dict[str, Any] = {
        "training_labels": data.labels,  # they give classes, which nothing here reads
        "num_classes": len(data.gains),
    }
    if name == "random":
        ids = [str(place) for place in data.ties]
        return baselines.random(ids, seed=seed, **training).scores
    return baselines.token_overlap(
        pairs.queries,
        pairs.titles,
        training_queries=pairs.queries,
        training_titles=pairs.titles,
        **training,
    ).scores


def fit_linear(task: Task) -> tuple[np.ndarray, Any]:
    """The linear listwise ranker; its ridge is chosen inside."""
    lists = task.data.lists().rows(task.training)
    ridge, _ = linear.choose(lists, task.inner)
    weights = linear.fit(lists, ridge=ridge)
    scores = task.data.features.values @ weights
    return scores, {"ridge": ridge, "weights": weights.round(4).tolist()}


def fit_lambdamart(task: Task) -> tuple[np.ndarray, Any]:
    """LightGBM's LambdaMART on the same features; size and number of trees are chosen inside."""
    data, means = task.data, {}
    for leaves, least in itertools.product(LEAVES, LEAST_PAIRS):
        scores = np.full((len(TREES), len(data.labels)), np.nan)
        for one in task.inside():
            left_out = task.training & ~one.training
            model = _boosted(data, np.flatnonzero(one.training), leaves, least, max(TREES))
            for at, trees in enumerate(TREES):
                found = model.predict(data.features.values[left_out], num_iteration=trees)
                scores[at, left_out] = found
        for trees, of_trees in zip(TREES, scores, strict=True):
            means[leaves, least, trees] = np.nanmean(data.ndcg(of_trees, task.training))
    leaves, least, trees = max(means, key=lambda setting: means[setting])
    model = _boosted(data, np.flatnonzero(task.training), leaves, least, trees)
    chosen = {"leaves": leaves, "least_pairs": least, "trees": trees}
    return np.asarray(model.predict(data.features.values)), chosen


def _boosted(
    data: Judged, rows: np.ndarray, leaves: int, least: int, trees: int
) -> lightgbm.Booster:
    rows = rows[np.argsort(data.query[rows], kind="stable")]
    smallest = min(data.gains[data.gains > 0])
    training = lightgbm.Dataset(
        data.features.values[rows],
        data.labels[rows],
        group=np.unique(data.query[rows], return_counts=True)[1],
    )
    settings = {
        "objective": "lambdarank",
        "label_gain": (data.gains / smallest).tolist(),
        "lambdarank_truncation_level": 15,
        "learning_rate": 0.05,
        "num_leaves": leaves,
        "min_data_in_leaf": least,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": 0,
        "verbose": -1,
    }
    return lightgbm.train(settings, training, num_boost_round=trees)


def fit_trees(task: Task) -> tuple[np.ndarray, Any]:
    """The product's trees, of a fixed size."""
    data = task.data
    made = boosting.TreeRanker(data.features.names, boosting.fit(data.lists().rows(task.training)))
    return made.scores(data.features.names, data.features.values), {}


def blend(task: Task) -> tuple[np.ndarray, Any]:
    """The product's sum of the scores of `linear` and `trees`."""
    return features.blended([fit_linear(task)[0], fit_trees(task)[0]], task.data.query), {}


def contest_of_features(task: Task) -> tuple[np.ndarray, Any]:
    """What the product exports where it has no encoder: `linear`, `trees`, `blend` or a baseline.

    Each is judged by scores that did not see the query, and chosen by the product's own rule.
    """
    data, rows = task.data, task.training
    lists = data.lists().rows(rows)
    whole = {"linear": fit_linear(task)[0], "trees": fit_trees(task)[0]}
    inside = {name: np.zeros(len(rows)) for name in whole}
    inside["linear"][rows] = linear.held_out(lists, task.inner)
    inside["trees"][rows] = boosting.held_out(lists, task.inner)
    for of in (whole, inside):
        of["blend"] = features.blended([*of.values()], data.query)
    ndcg = {name: data.ndcg(scores, rows) for name, scores in inside.items()}
    free = {name: baseline(data, name, 0) for name in BASELINES if name != "random"}
    ndcg |= {name: data.ndcg(scores, rows) for name, scores in free.items()}
    ranker = judging.decide(ndcg, baselines=tuple(free), encoders=()).ranker
    return (whole | free)[ranker], {"winner": ranker}


def alone(recipe: str) -> Ranker:
    """The encoder of a recipe alone, of pairs of the outer fold."""
    return lambda task: (task.models[recipe].outer(task.outer), {})


def alone_inside(recipe: str) -> Ranker:
    """The encoder of a recipe alone, of pairs of the inner folds too."""
    return lambda task: (task.models[recipe].nested(task.outer, several=False), {})


def stack_of(*recipes: str) -> Ranker:
    """The linear ranker with the scores of encoders for further features."""
    return lambda task: fit_linear(task.with_encoders(*recipes))


def blend_of(*recipes: str) -> Ranker:
    """The blend with the scores of encoders for further features."""
    return lambda task: blend(task.with_encoders(*recipes))


def sum_with(recipe: str) -> Ranker:
    """The sum of `linear`, `trees` and an encoder, as `blend` adds: nothing is fitted of it.

    So it needs no scores of encoders inside the four fifths: one model for each fold is enough.
    """

    def ranker(task: Task) -> tuple[np.ndarray, Any]:
        members = [one(task)[0] for one in (fit_linear, fit_trees, alone(recipe))]
        return features.blended(members, task.data.query), {}

    return ranker


def cross_encoders(task: Task) -> tuple[np.ndarray, Any]:
    """The mean of the cross-encoders that each left out a further fold."""
    return task.models[FIRST].nested(task.outer, several=True), {}


def stack_of_several(task: Task) -> tuple[np.ndarray, Any]:
    """The stack; pairs of the outer fold are scored by the mean of several cross-encoders."""
    return fit_linear(task.with_encoders(FIRST, several=True))


def lambdamart_stack(task: Task) -> tuple[np.ndarray, Any]:
    """LambdaMART with the cross-encoder's score for a further feature."""
    return fit_lambdamart(task.with_encoders(FIRST))


def exported(task: Task) -> tuple[np.ndarray, Any]:
    """What a contest inside the four fifths chooses in which a baseline needs no margin.

    That was the product's rule when it was measured first.
    """
    return _exported(task, margin=False)


def exported_by_margin(task: Task) -> tuple[np.ndarray, Any]:
    """What the contest inside chooses: a baseline too needs a standard error to replace `linear`.

    The rule was changed after the choices of `exported` on Icecat had been seen.
    """
    return _exported(task, margin=True)


def _exported(task: Task, *, margin: bool) -> tuple[np.ndarray, Any]:
    data = task.data
    rankers: dict[str, Ranker] = {
        "linear": fit_linear,
        FIRST: alone_inside(FIRST),
        "stack": stack_of(FIRST),
    }
    seed = task.models[FIRST].start.seed
    fixed = {name: baseline(data, name, seed) for name in BASELINES}

    def inside(scores: np.ndarray) -> np.ndarray:
        return data.ndcg(scores, task.training)

    ours = {name: inside(task.inner_scores(ranker)) for name, ranker in rankers.items()}
    free = {name: inside(scores) for name, scores in fixed.items()}
    winner = contest(ours | free, {}) if margin else contest(ours, free)
    scores = fixed[winner] if winner in fixed else rankers[winner](task)[0]
    return scores, {"winner": winner}


def contest(
    rankers: Mapping[str, np.ndarray], fixed: Mapping[str, np.ndarray], *, first: str = "linear"
) -> str:
    """The name of what is exported, by the nDCG `[Q]` of each on queries it was not fitted on.

    A ranker replaces `first` only where the mean of its differences to it is above one standard
    error of that mean; of several the best does. What is best among `fixed`, the baselines, is
    taken where its mean is not below that of the ranker. NaN, a query without a gain, is left out.
    """

    def ahead(values: np.ndarray) -> bool:
        difference = values - rankers[first]
        difference = difference[~np.isnan(difference)]
        error = difference.std(ddof=1) / len(difference) ** 0.5
        return bool(difference.mean() > error)

    means = {name: np.nanmean(values) for name, values in {**rankers, **fixed}.items()}
    able = [name for name, values in rankers.items() if name == first or ahead(values)]
    best = max(able, key=lambda name: means[name])
    free = max(fixed, key=lambda name: means[name], default=best)
    return best if means[best] > means[free] else free


def of_pairs(ranker: Ranker) -> Ranker:
    """A ranker without the features of lists and of further text."""
    return lambda task: ranker(
        replace(task, data=task.data.without_features(FEEDBACK, COSINE_TEXT))
    )


RANKERS: dict[str, tuple[Ranker, tuple[str, ...]]] = {
    "linear": (fit_linear, ()),
    "lambdamart": (fit_lambdamart, ()),
    "trees": (fit_trees, ()),
    "blend": (blend, ()),
    "contest_of_features": (contest_of_features, ()),
    "linear_of_pairs": (of_pairs(fit_linear), ()),
    "lambdamart_of_pairs": (of_pairs(fit_lambdamart), ()),
    FIRST: (alone(FIRST), (FIRST,)),
    "cross_encoders": (cross_encoders, (FIRST,)),
    "stack": (stack_of(FIRST), (FIRST,)),
    "stack_of_several": (stack_of_several, (FIRST,)),
    "lambdamart_stack": (lambdamart_stack, (FIRST,)),
    "exported": (exported, (FIRST,)),
    "exported_by_margin": (exported_by_margin, (FIRST,)),
}
"""Each ranker, and the recipes whose models it needs."""


def rankers_of(recipes: Sequence[str]) -> dict[str, tuple[Ranker, tuple[str, ...]]]:
    """Those of RANKERS that need no other recipe, and of further recipes their own and stacks."""
    found = {name: one for name, one in RANKERS.items() if set(one[1]) <= set(recipes)}
    for recipe in recipes:
        if recipe != FIRST:
            found[recipe] = (alone(recipe), (recipe,))
            found[f"sum with {recipe}"] = (sum_with(recipe), (recipe,))
            found[f"stack of {recipe}"] = (stack_of(recipe), (recipe,))
            found[f"blend of {recipe}"] = (blend_of(recipe), (recipe,))
    if len(recipes) > 1:
        found["stack of all"] = (stack_of(*recipes), tuple(recipes))
    return found


def out_of_fold(
    data: Judged, ranker: Ranker, models: Mapping[str, Models], *, number: int, seed: int
) -> tuple[np.ndarray, list[Any]]:
    """The score of every pair by a ranker that has not seen its query, and what each fold chose."""
    queries = np.asarray(data.pairs.query_ids)
    fold = folds.assign(queries.tolist(), folds=number, seed=seed)
    scores, chosen = np.empty(len(fold)), []
    for outer in range(number):
        training = fold != outer
        inner = folds.assign(queries[training].tolist(), folds=INNER, seed=seed)
        given, choice = ranker(Task(data, training, inner, outer, models))
        scores[~training] = given[~training]
        chosen.append(choice)
    return scores, chosen
