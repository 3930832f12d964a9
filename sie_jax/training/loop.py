"""One training run from its first step to its last, resumed wherever it was left."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from sie_jax.data.loading import Arrays, PlannedBatches, iterate
from sie_jax.devices import mesh as meshes
from sie_jax.devices import profiling
from sie_jax.errors import NumericalError, StoppedError
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.history import History
from sie_jax.training.logs import Clock, MetricsLog, bar
from sie_jax.training.state import TrainState
from sie_jax.training.step_meter import StepMeter
from sie_jax.training.steps import Step


class Report(NamedTuple):
    """A step whose numbers are still on their way from the device."""

    step: int
    batch: Arrays
    metrics: dict[str, jax.Array]
    tokens: int
    slots: int
    flops: int | None


def fit(
    name: str,
    state: TrainState,
    step_fn: Step,
    batches: PlannedBatches,
    *,
    checkpoints: RunCheckpoints,
    log: MetricsLog,
    clock: Clock,
    console: Console,
    mesh: Mesh,
    example_ids: np.ndarray,
    config: dict[str, Any],
    checkpoint_every: int,
    log_every: int,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
    rate_field: str = "train.learning_rate",
    history: History | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    flops: Callable[[int, int], int | None] = lambda rows, length: None,
    peak: float | None = None,
    profile: Sequence[int] | None = None,
    profile_folder: Path = Path("profile"),
    replay: Callable[[int, Arrays], None] = lambda step, batch: None,
) -> tuple[TrainState, dict[str, Any]]:
    """Runs every batch of `batches` through `step_fn` and gives the last state and the record.

    Goes on from the newest checkpoint, data position included. A checkpoint is written every
    `checkpoint_every` steps, at the end of every epoch (after `validate`), and only once the loss
    of its last step is known to be finite. The record counts `examples`, padding left out.
    `history` is given the margin and the loss that each step computed for each of its examples.
    `stop` is asked after every step, of all processes alike. What the steps took is logged beside
    their loss (StepMeter): `flops` gives a step's FLOPs by rows and length, `peak` is the devices'
    FLOP/s, all of them together, and `profile` the steps to trace into `profile_folder`.

    Raises StoppedError after the step at which `stop` says so, once a checkpoint of it is on disk;
    and NumericalError at the first loss or gradient norm that is not finite, naming the step
    and the example ids, and to lower `rate_field`; the checkpoints before it stay, and `replay` is
    given the step and its batch.
    """
    record: dict[str, Any] = {"examples": 0, "config": config}
    step = 0
    if checkpoints.latest_step is not None:
        state, record, step = checkpoints.restore(state)
    log.rewind(name, step)
    if history is not None:
        history.rewind(step)
    total, per_epoch = len(batches), batches.batches_per_epoch
    meter = StepMeter(peak, mesh.local_devices)
    checked = functools.partial(
        _checked,
        meter=meter,
        log=log,
        name=name,
        log_every=log_every,
        example_ids=example_ids,
        rate_field=rate_field,
        history=history,
        record=record,
        replay=replay,
    )
    flops_of = functools.cache(flops)
    iterator = iterate(batches, start=step)
    with (
        bar(name, total, console, step) as progress,
        profiling.profiler_window(profile_folder, profile) as window,
    ):
        waiting: Report | None = None
        while step < total:
            window.before(step + 1)
            with meter.waiting():
                batch = next(iterator)
            state, metrics = step_fn(state, meshes.place_batch(mesh, batch))
            step += 1
            # the step before is looked at only now, so that the device always has work queued
            loss = checked(waiting)
            rows, length = batch["attention_mask"].shape
            # of several processes each has seen its own rows, which stand for all
            tokens = int((batch["attention_mask"] & batch["mask"][:, None]).sum())
            waiting = Report(
                step,
                batch,
                metrics,
                tokens=tokens * batches.batch_size // rows,
                slots=batches.batch_size * length,
                flops=flops_of(batches.batch_size, length),
            )
            progress.advance(batch, "" if loss is None else f"loss {loss:.3f}")
            clock.tick()
            at_epoch_end, stopping = step % per_epoch == 0, stop(step)
            if step % checkpoint_every == 0 or at_epoch_end or stopping:
                checked(waiting)
                waiting = None
                with meter.outside_steps():
                    if at_epoch_end and validate is not None:
                        log.write(name, step, epoch=step // per_epoch, **validate(state))
                    if history is not None:
                        history.flush(step)
                    checkpoints.save(step, state, record)
            window.after(step, metrics)
            if stopping:
                checkpoints.wait()
                clock.tick(force=True)
                raise StoppedError(
                    f"run {name} was asked to stop and did so after step {step} of {total}: "
                    "the same command goes on there"
                )
    checkpoints.wait()
    clock.tick(force=True)
    return state, record


def _checked(
    report: Report | None,
    *,
    meter: StepMeter,
    log: MetricsLog,
    name: str,
    log_every: int,
    example_ids: np.ndarray,
    rate_field: str,
    history: History | None,
    record: dict[str, Any],
    replay: Callable[[int, Arrays], None],
) -> float | None:
    if report is None:
        return None
    metrics = jax.device_get(report.metrics)
    real = metrics["row"] >= 0
    rows = metrics["row"][real]
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (np.isfinite(loss) and np.isfinite(norm)):
        replay(report.step, report.batch)
        broken = rows[~np.isfinite(metrics["losses"][real])]
        blamed = example_ids[broken if len(broken) else rows]
        named = ", ".join(str(one) for one in blamed[:20])
        more = f" and {len(blamed) - 20} more" if len(blamed) > 20 else ""
        raise NumericalError(
            f"run {name}: loss {loss}, gradient norm {norm} at step {report.step}, "
            f"example ids {named}{more}: lower {rate_field} or look at these rows; "
            "the last good checkpoint is kept"
        )
    record["examples"] += len(rows)
    meter.step(rows=len(rows), tokens=report.tokens, slots=report.slots, flops=report.flops)
    if history is not None:
        history.add(report.step, rows, metrics["margins"][real], metrics["losses"][real])
    if report.step % log_every == 0:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        log.write(name, report.step, **values)
        log.write_speed(name, report.step, **meter.interval())
    return loss
