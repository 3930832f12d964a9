"""One training run from its first step to its last, resumed wherever it was left."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.errors import NumericalError
from sie_jax.training import mesh as meshes
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.history import History
from sie_jax.training.logs import Clock, MetricsLog, bar
from sie_jax.training.state import TrainState
from sie_jax.training.steps import Step

ROW = "row"


class Report(NamedTuple):
    """A step whose numbers are still on their way from the device."""

    step: int
    rows: np.ndarray
    metrics: dict[str, jax.Array]


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
) -> tuple[TrainState, dict[str, Any]]:
    """Runs every batch of `batches` through `step_fn` and gives the last state and the record.

    Goes on from the newest checkpoint, data position included. A checkpoint is written every
    `checkpoint_every` steps, at the end of every epoch (after `validate`), and only once the loss
    of its last step is known to be finite. The record counts `examples`, padding left out.
    `history` is given the margin and the loss that each step computed for each of its examples.

    Raises NumericalError at the first loss or gradient norm that is not finite, naming the step
    and the example ids, and to lower `rate_field`; the checkpoints before it stay.
    """
    iterator = iterate(batches)
    record: dict[str, Any] = {"examples": 0, "config": config}
    step = 0
    if checkpoints.latest_step is not None:
        state, record = checkpoints.restore(state, iterator)
        step = checkpoints.latest_step
    log.rewind(name, step)
    if history is not None:
        history.rewind(step)
    total, per_epoch = len(batches), batches.batches_per_epoch
    with bar(name, total, console, step) as progress:
        waiting: Report | None = None
        while step < total:
            batch = next(iterator)
            state, metrics = step_fn(state, meshes.place_batch(mesh, batch))
            step += 1
            record["examples"] += int(batch["mask"].sum())
            # the step before is looked at only now, so that the device always has work queued
            loss = _checked(waiting, log, name, log_every, example_ids, rate_field, history)
            waiting = Report(step, batch[ROW][batch["mask"]], metrics)
            progress.advance(batch, "" if loss is None else f"loss {loss:.3f}")
            clock.tick()
            at_epoch_end = step % per_epoch == 0
            if step % checkpoint_every == 0 or at_epoch_end:
                _checked(waiting, log, name, log_every, example_ids, rate_field, history)
                waiting = None
                if at_epoch_end and validate is not None:
                    log.write(name, step, epoch=step // per_epoch, **validate(state))
                if history is not None:
                    history.flush(step)
                checkpoints.save(step, state, iterator, record)
    checkpoints.wait()
    clock.tick(force=True)
    return state, record


def _checked(
    report: Report | None,
    log: MetricsLog,
    name: str,
    log_every: int,
    example_ids: np.ndarray,
    rate_field: str,
    history: History | None,
) -> float | None:
    if report is None:
        return None
    metrics = jax.device_get(report.metrics)
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (np.isfinite(loss) and np.isfinite(norm)):
        losses = metrics["losses"][: len(report.rows)]
        broken = report.rows[~np.isfinite(losses)]
        blamed = example_ids[broken if len(broken) else report.rows]
        named = ", ".join(str(one) for one in blamed[:20])
        more = f" and {len(blamed) - 20} more" if len(blamed) > 20 else ""
        raise NumericalError(
            f"run {name}: loss {loss}, gradient norm {norm} at step {report.step}, "
            f"example ids {named}{more}: lower {rate_field} or look at these rows; "
            "the last good checkpoint is kept"
        )
    if history is not None:
        real = slice(len(report.rows))
        history.add(report.step, report.rows, metrics["margins"][real], metrics["losses"][real])
    if report.step % log_every == 0:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        log.write(name, report.step, **values)
    return loss
