"""Translation: a ranker that learns from the training pairs which words stand for which."""

import numpy as np

from sie_jax import processes
from sie_jax.data import translation as translating
from sie_jax.data.preparing import Prepared
from sie_jax.data.translation import Translation
from sie_jax.workdir import Job, Made, stage

FILE = "translation.parquet"


def read(made: Made[Translation]) -> Translation:
    """What was learnt."""
    return Translation.load(made.folder / FILE)


@stage(leaves=(FILE,), read=read)
def translation(job: Job, prepared: Made[Prepared]) -> None:
    """Leaves translation.parquet."""
    processes.alone(lambda: learnt(prepared.value).save(job.folder / FILE))


def learnt(prepared: Prepared, rows: np.ndarray | None = None) -> Translation:
    """Word translation from the training pairs, or from those of them that `rows` takes."""
    training = prepared.split("train")
    if rows is not None:
        training = training.take(rows)
    gains = np.array(prepared.scale.gains)[training["label"].to_numpy()]
    items = translating.item_texts(training["title"].to_pylist(), training["text"].to_pylist())
    return translating.learn(training["query"].to_pylist(), items, gains)


def translated(known: Translation, prepared: Prepared, split: str) -> np.ndarray:
    """The score of each of a split's pairs."""
    pairs = prepared.split(split)
    items = translating.item_texts(pairs["title"].to_pylist(), pairs["text"].to_pylist())
    return known.scores(pairs["query"].to_pylist(), items)


def out_of_fold(prepared: Prepared, folds: np.ndarray) -> np.ndarray:
    """The score of each training pair by what was learnt without its fold."""
    scores = np.empty(len(folds))
    for fold in np.unique(folds):
        inside = folds == fold
        known = learnt(prepared, np.flatnonzero(~inside))
        scores[inside] = translated(known, prepared, "train")[inside]
    return scores
