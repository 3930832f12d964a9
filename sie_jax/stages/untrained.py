"""Untrained: what ranks a split's pairs without any training, beside every run's models."""

import numpy as np

from sie_jax.data.features import CHECKPOINTS
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import CURRENT, MOST_CLASSES
from sie_jax.evaluation import Predictions, baselines
from sie_jax.stages.features import Features


def untrained(
    prepared: Prepared, features: Features, split: str, *, seed: int
) -> dict[str, Predictions]:
    """The baselines by name: chance, words, BM25; the checkpoint's cosines and today's score.

    The checkpoint's and today's score are among them where there are such.

    Features are standardised within the query, which keeps the order of its items. seed: of chance.
    """
    pairs, training = prepared.split(split), prepared.split("train")
    labels, classes = training["label"].to_numpy(), len(prepared.scale.names)
    found = {
        "random": baselines.random(
            pairs["example_id"].to_pylist(), training_labels=labels, num_classes=classes, seed=seed
        ),
        "token_overlap": baselines.token_overlap(
            pairs["query"].to_pylist(),
            pairs["title"].to_pylist(),
            training_queries=training["query"].to_pylist(),
            training_titles=training["title"].to_pylist(),
            training_labels=labels,
            num_classes=classes,
        ),
        "bm25": _ranked(features.column("bm25_title", split)),
    }
    if classes > MOST_CLASSES:  # labels are numbers, and nothing names them
        found = {name: _ranked(one.scores) for name, one in found.items()}
    for name, column in CHECKPOINTS.items():
        if column in features.names:
            found[name] = _ranked(features.column(column, split))
    if CURRENT in pairs.column_names:
        found["current"] = _ranked(baselines.current(pairs[CURRENT].to_numpy()))
    return found


def _ranked(scores: np.ndarray) -> Predictions:
    return Predictions(None, scores)
