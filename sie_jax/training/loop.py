"""One training run from its first step to its last, resumed wherever it was left."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from sie_jax.data.loading import Arrays, PlannedBatches, iterate
from sie_jax.devices import mesh as meshes
from sie_jax.devices import profiling
from sie_jax.errors import NumericalError, StoppedError
from sie_jax.training.observers import Observers
from sie_jax.training.progress import bar
from sie_jax.training.run import Run
from sie_jax.training.state import TrainState
from sie_jax.training.step_meter import StepMeter
from sie_jax.training.steps import Step

METRIC = "validation_ndcg@10"


class Report(NamedTuple):
    """A step whose numbers are still on their way from the device."""

    step: int
    batch: Arrays
    metrics: dict[str, jax.Array]
    tokens: int
    slots: int
    flops: int | None


def fit(
    run: Run,
    state: TrainState,
    step_fn: Step,
    batches: PlannedBatches,
    *,
    mesh: Mesh,
    example_ids: np.ndarray,
    observers: Observers,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
) -> tuple[TrainState, int]:
    """Runs every batch of `batches` through `step_fn`; gives the last state and the examples seen.

    Continues from the newest checkpoint, data position included. A checkpoint is written every
    `observers.checkpoint_every` steps, at the end of every epoch (after `validate`), and only once
    the loss of its last step is known to be finite. Padding counts as no example; validation
    examples that a step learns from count. A run whose schedule has `patience` ends at the end of
    an epoch once so many epochs in a row gave no higher METRIC than the best before them.

    Raises StoppedError after the step at which `observers.stop` says so, once a checkpoint of it is
    on disk; and NumericalError at the first loss or gradient norm that is not finite, naming the
    step and the example ids. The checkpoints before it stay, and `observers.replay` is given the
    step and its batch.
    """
    record: dict[str, Any] = {"examples": 0}
    step, history = 0, observers.history
    if observers.checkpoints.latest_step is not None:
        state, record, step = observers.checkpoints.restore(state)
    observers.log.rewind(run.name, step)
    if history is not None:
        history.rewind(step, record.get("history", {}))
    measured: list[float] = record.setdefault("validation", [])
    total, per_epoch = len(batches), batches.batches_per_epoch
    meter = StepMeter(observers.peak, mesh.local_devices)
    checked = functools.partial(
        _checked,
        meter=meter,
        run=run,
        example_ids=example_ids,
        observers=observers,
    )
    flops_of = functools.cache(observers.flops)
    iterator = iterate(batches, start=step)
    with (
        bar(run.name, total, observers.console, step) as progress,
        profiling.profiler_window(observers.profile_folder, observers.profile or None) as window,
    ):
        waiting: Report | None = None

        def settle() -> float | None:
            """Looks at the step whose numbers are on their way, and counts its examples."""
            nonlocal waiting
            report, waiting = waiting, None
            loss = checked(report)
            if report is not None:
                record["examples"] += batches.examples(report.step - 1)
            return loss

        while step < total and not _stale(measured, run.train.patience):
            window.before(step + 1)
            with meter.waiting():
                batch = next(iterator)
            state, metrics = step_fn(state, meshes.place_batch(mesh, batch))
            step += 1
            # the step before is looked at only now, so that the device always has work queued
            loss = settle()
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
            observers.cost.tick()
            at_epoch_end, stopping = step % per_epoch == 0, observers.stop(step)
            if step % observers.checkpoint_every == 0 or at_epoch_end or stopping:
                settle()
                with meter.outside_steps():
                    if at_epoch_end and validate is not None:
                        values = validate(state)
                        observers.log.write(run.name, step, epoch=step // per_epoch, **values)
                        measured += [values[METRIC]] if METRIC in values else []
                    if history is not None:
                        history.flush(step)
                        record["history"] = history.digests
                    observers.checkpoints.save(step, state, record)
            window.after(step, metrics)
            if stopping:
                observers.checkpoints.wait()
                observers.cost.tick(force=True)
                raise StoppedError(
                    f"run {run.name} was asked to stop and stopped after step {step} of {total}: "
                    "rerun the same command to resume there"
                )
    observers.checkpoints.wait()
    observers.cost.tick(force=True)
    return state, record["examples"]


def _stale(measured: list[float], patience: int) -> bool:
    """Whether the last `patience` of the values are no higher than the best before them."""
    before, since = measured[:-patience], measured[-patience:]
    return bool(patience and before) and max(since) <= max(before)


def _checked(
    report: Report | None,
    *,
    meter: StepMeter,
    run: Run,
    example_ids: np.ndarray,
    observers: Observers,
) -> float | None:
    """The loss of a step once it is known to be finite; its numbers are logged and kept."""
    if report is None:
        return None
    metrics = jax.device_get(report.metrics)
    real = metrics["row"] >= 0
    rows = metrics["row"][real]
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (np.isfinite(loss) and np.isfinite(norm)):
        observers.replay(report.step, report.batch)
        broken = rows[~np.isfinite(metrics["losses"][real])]
        blamed = example_ids[broken if len(broken) else rows]
        named = ", ".join(str(one) for one in blamed[:20])
        more = f" and {len(blamed) - 20} more" if len(blamed) > 20 else ""
        section = "pretrain" if run.train.task == "masked" else "train"
        fix = f"lower {section}.learning_rate or look at these rows"
        if report.step == 1:  # no learning rate has changed anything yet
            fix = "look at the weights that it starts from, and at these rows"
        raise NumericalError(
            f"run {run.name}: loss {loss}, gradient norm {norm} at step {report.step}, "
            f"example ids {named}{more}: {fix}; "
            "the last good checkpoint is kept"
        )
    meter.step(rows=len(rows), tokens=report.tokens, slots=report.slots, flops=report.flops)
    if observers.history is not None:
        observers.history.add(report.step, rows, metrics["margins"][real], metrics["losses"][real])
    if report.step % observers.log_every == 0:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        observers.log.write(run.name, report.step, **values)
        observers.log.write_speed(run.name, report.step, **meter.interval())
    return loss
