"""Blend: the trained recommender and one without a network, their standardised scores added."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sie_jax import processes
from sie_jax.data.histories.histories import TEST, VALIDATION, Cases, cases
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.files import read_json, whole, write_json
from sie_jax.models.recommenders import Recommender
from sie_jax.passes.recommend import all_logits
from sie_jax.serving.recommending import HistoryRecommender, blended
from sie_jax.stages.history_runs import HistoryRuns, HistoryStart
from sie_jax.stages.history_train import Recommended
from sie_jax.stages.recommenders import DEPTH, METRIC, Fitted, first
from sie_jax.workdir import Job, Made, stage

BLEND, FILE, LISTS = "blend", "blend.json", "predictions/blend.npz"
SHARES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
MOST = 4096
"""Validation users that choose the share, evenly among all."""


class Blended(NamedTuple):
    """Which recommender is added with which share, what each gave, and the lists `[C, k]`."""

    partner: str
    share: float
    values: dict[str, float]
    validation: np.ndarray
    test: np.ndarray


def read(made: Made[Blended]) -> Blended:
    """What was chosen."""
    told = read_json(made.folder / FILE)
    with np.load(made.folder / LISTS) as stored:
        lists = dict(stored)
    return Blended(told["partner"], told["share"], told["values"], **lists)


@stage(leaves=(FILE, LISTS), read=read, trains=False)
def blend(
    job: Job,
    start: HistoryStart,
    trained: Made[Recommended],
    fitted: Made[Fitted],
    *,
    depth: int,
) -> None:
    """Leaves the partner and the share with the highest nDCG@10 on validation users.

    The score of an item is z + share · z', each standardised over the items of one user.
    """
    runs, found = HistoryRuns(job, start), fitted.value.recommenders
    model = HistoryRecommender.load(trained.value.model).model
    assert model is not None
    params = meshes.place(job.mesh, nnx.state(model, nnx.Param))
    own = runs.histories
    asked = cases(own, VALIDATION)
    number = min(len(asked), MOST)
    some = asked.rows(np.arange(number) * len(asked) // number)
    wanted = Wanted(some.case, some.item)
    lists: dict[tuple[str, float], list[np.ndarray]] = {}
    for rows, ours in _scored(runs, params, some):
        theirs = {name: _of(one, runs, rows) for name, one in found.items()}
        for name, scores in theirs.items():
            for share in SHARES:
                made = blended(ours, scores, share)
                lists.setdefault((name, share), []).append(first(made, min(DEPTH, made.shape[1])))
    values = {
        key: float(
            retrieval.per_query(np.concatenate(several), wanted, depths=(DEPTH,))[METRIC].mean()
        )
        for key, several in lists.items()
    }
    name, share = max(values, key=lambda key: values[key])
    depth = min(depth, len(own.items))
    kept: dict[str, Any] = {}
    for split, of in (("validation", VALIDATION), ("test", TEST)):
        kept[split] = np.concatenate(
            [
                first(blended(ours, _of(found[name], runs, rows), share), depth)
                for rows, ours in _scored(runs, params, cases(own, of))
            ]
        )
    told = {
        "partner": name,
        "share": share,
        "values": {f"{one} {size:g}": value for (one, size), value in values.items()},
    }
    job.say(
        f"blend: {name} with a share of {share:g}: validation {METRIC} {values[name, share]:.4f}"
    )

    def leave() -> None:
        write_json(job.folder / FILE, told)
        with whole(job.folder / LISTS) as temporary, temporary.open("wb") as file:
            np.savez(file, **kept)

    processes.alone(leave)


def _scored(runs: HistoryRuns, params: Any, asked: Cases) -> Iterator[tuple[Cases, np.ndarray]]:
    """Some cases at a time with the logits of all items; −∞ for what is not to be recommended."""
    task = runs.task()
    met = jnp.asarray(runs.met)
    for begin in range(0, len(asked), runs.planner.batch_size):
        rows = asked.rows(np.arange(begin, min(begin + runs.planner.batch_size, len(asked))))
        (batch,) = runs.planner.asked_together(rows)
        logits = np.asarray(all_logits(task, params, met, batch), np.float64)[: len(rows)]
        if not runs.start.repeats:
            for row, (start, stop) in enumerate(zip(rows.start, rows.stop, strict=True)):
                logits[row, runs.histories.item[start:stop]] = -np.inf
        yield rows, np.where(logits > np.finfo(np.float32).min, logits, -np.inf)


def _of(recommender: Recommender, runs: HistoryRuns, rows: Cases) -> np.ndarray:
    read = [
        runs.histories.item[start:stop] for start, stop in zip(rows.start, rows.stop, strict=True)
    ]
    users = np.where(rows.known, rows.user, -1)
    return recommender.scores(users, read).astype(np.float64)
