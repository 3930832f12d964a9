"""Linear: the simplest ranker of our own, listwise over the features alone."""

import numpy as np

from sie_jax import processes
from sie_jax.data import folds as dealing
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import normalise_query
from sie_jax.models import linear as fitting
from sie_jax.models.linear import LinearRanker, Lists
from sie_jax.stages.features import Features
from sie_jax.workdir import Job, Made, stage

FILE = "linear.json"
FOLDS = 5
"""Of the training queries, by which the ridge strength is chosen."""


def read(made: Made[LinearRanker]) -> LinearRanker:
    """The ranker."""
    return LinearRanker.load(made.folder / FILE)


@stage(leaves=(FILE,), read=read)
def linear(
    job: Job, prepared: Made[Prepared], features: Made[Features], *, split_seed: int
) -> None:
    """Leaves linear.json: weights of the features, with the ridge strength chosen on folds."""
    training, gains = prepared.value.split("train"), np.array(prepared.value.scale.gains)
    queries = [normalise_query(query) for query in training["query"].to_pylist()]
    distinct, query_index = np.unique(queries, return_inverse=True)
    known = features.value
    lists = Lists(known.values["train"], gains[training["label"].to_numpy()], query_index)
    folds = dealing.assign(queries, folds=min(FOLDS, len(distinct)), seed=split_seed)
    ridge, _ = fitting.choose(lists, folds)
    weights = fitting.fit(lists, ridge=ridge)
    ranker = LinearRanker(known.names, tuple(map(float, weights)), ridge)
    processes.alone(ranker.save, job.folder / FILE)
