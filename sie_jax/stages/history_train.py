"""Train a recommender: one run on histories, and what it recommends to the users kept apart."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from sie_jax import processes
from sie_jax.data.histories.histories import TEST, VALIDATION, Cases, cases
from sie_jax.devices import mesh as meshes
from sie_jax.files import whole, whole_folder
from sie_jax.serving import recommending
from sie_jax.stages.history_runs import HistoryRuns, HistoryStart, model_of
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

MODELS = "models"
COLD_DEPTH = 20


class Recommended(NamedTuple):
    """The lists `[C, k]` of a run for the cases of each split, and its model's folder.

    cold: those of the test among the items alone that nobody met in training; empty without any.
    model: "" but for the first seed.
    """

    validation: np.ndarray
    test: np.ndarray
    cold: np.ndarray
    model: str


def _lists(run: str) -> str:
    return f"predictions/{run}.npz"


def read(made: Made[Recommended]) -> Recommended:
    """What a run left."""
    name = made.stage.partition("/")[2]
    folder = made.folder / MODELS / name
    with np.load(made.folder / _lists(name)) as stored:
        found = {key: stored[key] for key in ("validation", "test", "cold")}
    return Recommended(**found, model=str(folder) if folder.is_dir() else "")


def _leaves(given: Any) -> tuple[str, ...]:
    run: Run = given["run"]
    kept = (f"{MODELS}/{run.name}",) if run.seed == given["start"].seed else ()
    return (_lists(run.name), *kept)


@stage(leaves=_leaves, read=read, run="run")
def train(job: Job, run: Run, start: HistoryStart, *, depth: int) -> None:
    """Leaves the run's lists of `depth` items, and the first seed's models/RUN.

    All runs of one seed start from the same parameters and take the same batches.
    """
    runs = HistoryRuns(job, start)
    denoising = run.weighting.policy if run.weighting.kind == "denoising" else ""
    task = runs.task(denoising)
    state = runs.fit(run, task)
    own = runs.histories
    found: dict[str, Any] = {
        name: runs.recommended(task, state.params, cases(own, split), depth=depth)["items"]
        for name, split in (("validation", VALIDATION), ("test", TEST))
    }
    found["cold"] = np.empty((0, 0), np.int32)
    if not runs.met[1:].all() and task.texts is not None:
        cold = cold_cases(runs)
        among = ~runs.met
        found["cold"] = runs.recommended(
            task, state.params, cold, depth=min(COLD_DEPTH, int(among[1:].sum())), among=among
        )["items"]
    params = meshes.fetch(job.mesh, state.params) if run.seed == start.seed else None

    def leave() -> None:
        with whole(job.folder / _lists(run.name)) as temporary, temporary.open("wb") as file:
            np.savez(file, **found)
        if params is not None:
            with whole_folder(job.folder / MODELS / run.name) as temporary:
                recommending.save(
                    temporary,
                    items=own.items,
                    texts=own.texts,
                    met=runs.met,
                    repeats=start.repeats,
                    events=own.event_names,
                    model=model_of(task, params),
                    vectors=task.texts,
                )

    processes.alone(leave)


def cold_cases(runs: HistoryRuns) -> Cases:
    """The test cases that want an item which nobody met in training, with those items alone."""
    asked = cases(runs.histories, TEST)
    cold = ~runs.met[asked.item]
    chosen = np.unique(asked.case[cold])
    only = dataclasses.replace(asked, case=asked.case[cold], item=asked.item[cold])
    return only.rows(chosen)
