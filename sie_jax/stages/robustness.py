"""Robustness: what small changes of test queries do to the order of the exported ranker."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sie_jax import processes, serving
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import RATER
from sie_jax.evaluation import changes
from sie_jax.files import read_json, write_json
from sie_jax.stages.export import MODEL
from sie_jax.workdir import Job, Made, stage

FILE = "robustness.json"
# what a ranker must not see, and what it makes itself
_HIDDEN = ("label", "truth", "split", "length")


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """What each change does (`evaluation.changes.measure`)."""
    values: dict[str, Any] = read_json(made.folder / FILE)
    return values


@stage(leaves=(FILE,), read=read, trains=False)
def robustness(
    job: Job, prepared: Made[Prepared], exported: Made[Any], *, queries: int, seed: int
) -> None:
    """Leaves robustness.json: of up to `queries` test queries, what small changes of them do.

    exported: the stage that left the model folder. seed: draws the queries and the typos.
    """
    test, gains = prepared.value.split("test"), prepared.value.scale.gains
    labels = test["label"].to_numpy()
    places = changes.sample(test["query_id"].to_pylist(), labels, gains, most=queries, seed=seed)
    shown = [
        name for name in test.column_names if name not in _HIDDEN and not name.startswith(RATER)
    ]
    scorer, scored = serving.load(job.folder / MODEL), 0
    meter = job.meter("changes")

    def score(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        nonlocal scored
        scored += len(rows)
        return serving.score(scorer, rows)["score"].to_numpy()

    rows = test.select(shown).take(places).to_pylist()
    found = changes.measure(score, rows, labels[places], gains, seed=seed)
    meter.charge(examples=scored, forward_equivalents=scored)
    processes.alone(write_json, job.folder / FILE, found)
