"""One training run inside a stage: its folder, checkpoints, log, cost and observers."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from sie_jax import processes
from sie_jax.data.loading import Arrays, PlannedBatches
from sie_jax.devices import memory, peaks
from sie_jax.devices import mesh as meshes
from sie_jax.files import whole
from sie_jax.training import stopping
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.history import History
from sie_jax.training.loop import fit as loop
from sie_jax.training.observers import Observers
from sie_jax.training.run import Run
from sie_jax.training.state import TrainState
from sie_jax.training.steps import Step
from sie_jax.workdir import Job, Made

T = TypeVar("T")
# forward passes that a pass over one example amounts to
TRAINING, SCORING = 3, 2
STEPS = "steps"


class Watch(NamedTuple):
    """What a run's observers are made of.

    dtype: what its matrix products run in. flops: of a step on `[rows, length]` tokens, None where
    they are not known. price: forward passes that one of its examples amounts to. validate:
    measures the state after each epoch. history: see `Observers`. keep: the steps whose checkpoints
    stay.
    """

    dtype: str
    flops: Callable[[int, int], int | None]
    price: int = TRAINING
    validate: Callable[[TrainState], dict[str, float]] | None = None
    history: History | None = None
    keep: Sequence[int] = ()


def fit(
    job: Job,
    run: Run,
    state: TrainState,
    step: Step,
    batches: PlannedBatches,
    *,
    example_ids: np.ndarray,
    watch: Watch,
) -> TrainState:
    """Trains a run in its folder, from its newest checkpoint on; gives its last state.

    Raises UserError where the step does not fit into the devices' memory, and as `loop.fit`.
    """
    mesh, telling = job.mesh, job.workdir.train
    need = memory.of_step(step, state, meshes.place_batch(mesh, batches[batches.longest]))
    job.say(f"{run.name}: {memory.check(need, mesh.local_devices)}")
    if telling.profile_steps and telling.profile_steps[1] > len(batches):
        job.say(
            f"{run.name}: has {len(batches)} steps, of which those from {telling.profile_steps[0]} "
            "on are profiled"
        )
    processes.alone(run.write, job.run_folder(run.name))
    peak = peaks.peak_flops(mesh.devices.flat[0].device_kind, watch.dtype)
    meter = job.meter(run.name)
    with (
        closing(
            RunCheckpoints(steps_folder(job, run.name), keep=watch.keep, tell=job.say)
        ) as checkpoints,
        job.log(run.name) as log,
        stopping.deferred(),
    ):
        state, examples = loop(
            run,
            state,
            step,
            batches,
            mesh=mesh,
            example_ids=example_ids,
            observers=Observers(
                checkpoints,
                log,
                meter,
                job.console,
                checkpoint_every=telling.checkpoint_every,
                log_every=telling.log_every,
                history=watch.history,
                stop=stopping.asked,
                flops=watch.flops,
                peak=None if peak is None else peak * mesh.size,
                profile=telling.profile_steps,
                profile_folder=job.folder / "tracking" / run.name,
                replay=lambda at, batch: _keep_batch(job, run.name, at, batch),
            ),
            validate=watch.validate,
        )
    meter.charge(examples=examples, forward_equivalents=watch.price * examples)
    return state


def by_run(trained: Sequence[Made[T]]) -> dict[str, list[Made[T]]]:
    """The stages of training runs by the run's name, those of all seeds in their order."""
    found: dict[str, list[Made[T]]] = {}
    for made in trained:
        found.setdefault(made.stage.partition("/")[2].rpartition("-")[0], []).append(made)
    return found


def steps_folder(job: Job, run: str) -> Path:
    """Where the checkpoints of a run are."""
    return job.run_folder(run) / STEPS


def _keep_batch(job: Job, run: str, step: int, batch: Arrays) -> None:
    """Leaves the batch of a broken step for `--replay`, each process its own rows."""
    path = job.folder / "replay" / f"{run}-{step}-{jax.process_index()}.npz"
    arrays: dict[str, Any] = {"run": run, "step": step, **batch}
    with whole(path) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **arrays)
    job.say(f"the batch is kept; to explain it: python train.py --replay={path}")
