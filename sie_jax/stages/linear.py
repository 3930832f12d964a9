"""Linear: the simplest ranker of our own, listwise over the features alone."""

import numpy as np

from sie_jax import processes
from sie_jax.data import folds as dealing
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import normalise_query
from sie_jax.errors import UserError
from sie_jax.models import linear as fitting
from sie_jax.models.linear import LinearRanker, Lists
from sie_jax.stages.features import Features
from sie_jax.workdir import Job, Made, stage

FILE = "linear.json"
FOLDS = 5
"""Of the queries by which a ridge strength is chosen."""


def read(made: Made[LinearRanker]) -> LinearRanker:
    """The ranker."""
    return LinearRanker.load(made.folder / FILE)


@stage(leaves=(FILE,), read=read)
def linear(
    job: Job, prepared: Made[Prepared], features: Made[Features], *, split_seed: int
) -> None:
    """Leaves linear.json: weights of the features, with the ridge strength chosen on folds.

    Raises UserError where no training query has an item of positive gain.
    """
    known = features.value
    lists = lists_of(prepared.value, "train", known.values["train"])
    if not (lists.gains > 0).any():
        raise UserError(
            "no training query has an item with a positive gain, so there is no order to learn: "
            "check the labels and --config.data.gains"
        )
    folds = folds_of(prepared.value, "train", seed=split_seed)
    ranker = fitted(known.names, lists, folds)
    processes.alone(ranker.save, job.folder / FILE)


def lists_of(prepared: Prepared, split: str, columns: np.ndarray) -> Lists:
    """A split's pairs with columns `[N, F]` as a listwise ranker learns from them."""
    pairs, gains = prepared.split(split), np.array(prepared.scale.gains)
    query_index = np.unique(_queries(prepared, split), return_inverse=True)[1]
    return Lists(columns, gains[pairs["label"].to_numpy()], query_index)


def folds_of(prepared: Prepared, split: str, *, seed: int) -> np.ndarray:
    """The fold of each of a split's pairs, of FOLDS or as many as there are queries."""
    queries = _queries(prepared, split)
    if len(set(queries)) == 1:
        return np.zeros(len(queries), np.int32)
    return dealing.assign(queries, folds=min(FOLDS, len(set(queries))), seed=seed)


def list_lengths(prepared: Prepared) -> dict[str, int]:
    """How many items the training queries have: the 5th percentile and the median."""
    _, lengths = np.unique(_queries(prepared, "train"), return_counts=True)
    shares = {"low": 5, "median": 50}
    return {
        name: int(np.percentile(lengths, share, method="lower")) for name, share in shares.items()
    }


def fitted(names: tuple[str, ...], lists: Lists, folds: np.ndarray) -> LinearRanker:
    """The ranker on all lists, with the ridge strength chosen on the folds."""
    ridge, _ = fitting.choose(lists, folds)
    weights = fitting.fit(lists, ridge=ridge)
    return LinearRanker(names, tuple(map(float, weights)), ridge)


def _queries(prepared: Prepared, split: str) -> list[str]:
    return [normalise_query(query) for query in prepared.split(split)["query"].to_pylist()]
