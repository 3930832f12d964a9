import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from sie_jax.errors import NumericalError, StoppedError
from sie_jax.training import logs, loop, steps
from sie_jax.training import state as states
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.cost import CostMeter
from sie_jax.training.history import History
from sie_jax.training.logs import MetricsLog
from sie_jax.training.observers import Observers
from sie_jax.training.run import Run
from sie_jax.training.section import TrainConfig
from sie_jax.training.step_meter import StepMeter

EPOCHS = 2
RUN = Run("uniform-0", 3, TrainConfig(epochs=2).schedule())
OPTIMIZER = states.make_optimizer(
    learning_rate=0.01, total_steps=12, warmup_fraction=0.1, weight_decay=0.01, clip_norm=1.0
)


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def train(shop: Any, console: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs `fit` in a folder; `stop_at` raises in that step, `spoil` changes a step's batch."""
    real = steps.weighted_step(shop.task, OPTIMIZER, shop.mesh)

    def run(
        folder: str,
        *,
        stop_at: int | None = None,
        spoil: int | None = None,
        validate: Any = None,
        checkpoint_every: int = 4,
        asked_at: int | None = None,
        patience: int = 0,
        epochs: int = EPOCHS,
    ) -> Any:
        def step(state: Any, batch: Any) -> Any:
            number = int(state.step) + 1
            if number == stop_at:
                raise KilledError
            if number == spoil:
                batch = {**batch, "weight": batch["weight"].at[2].set(jnp.nan)}
            state, metrics = real(state, batch)
            if number == spoil:
                metrics["losses"] = metrics["losses"].at[2].set(jnp.nan)
                metrics["loss"] = jnp.float32(jnp.nan)
            return state, metrics

        workdir = tmp_path / folder
        workdir.mkdir(exist_ok=True)
        checkpoints = RunCheckpoints(workdir / "checkpoints")
        state = states.create(shop.params, OPTIMIZER, shop.mesh, seed=3)
        try:
            return loop.fit(
                dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, patience=patience)),
                state,
                step,
                shop.planned(epochs),
                mesh=shop.mesh,
                example_ids=np.array(
                    [f"id-{i}" for i in range(len(shop.prepared.lengths["train"]))]
                ),
                observers=Observers(
                    checkpoints,
                    MetricsLog(workdir / "metrics.jsonl"),
                    CostMeter(workdir / "cost.json"),
                    console,
                    checkpoint_every=checkpoint_every,
                    log_every=1,
                    history=History(workdir / "history"),
                    stop=lambda step: step == asked_at,
                ),
                validate=validate,
            )
        finally:
            checkpoints.close()

    return run


def log_of(folder: Path) -> list[Any]:
    return logs.read(folder / "metrics.jsonl")


def test_stopped_and_resumed_is_as_if_never_stopped(
    shop: Any, train: Any, tmp_path: Path, assert_trees_equal: Any
) -> None:
    made = shop.planned(EPOCHS)
    rows = len(shop.prepared.lengths["train"])
    validated: list[int] = []

    def validate(state: Any) -> dict[str, float]:
        validated.append(int(state.step))
        return {"validation_loss": float(state.step)}

    whole, examples = train("whole", validate=validate)
    assert examples == EPOCHS * rows
    assert int(whole.step) == len(made)
    ends = [made.batches_per_epoch * (epoch + 1) for epoch in range(EPOCHS)]
    assert validated == ends

    with pytest.raises(KilledError):
        train("stopped", stop_at=3, validate=validate)  # before the first checkpoint
    with pytest.raises(KilledError):
        train("stopped", stop_at=7, validate=validate)
    with pytest.raises(KilledError):
        train("stopped", stop_at=made.batches_per_epoch + 2, validate=validate)
    resumed, again = train("stopped", validate=validate)
    assert_trees_equal(resumed, whole)
    assert again == examples
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    steps_logged = [line["step"] for line in log_of(tmp_path / "whole") if "loss" in line]
    assert steps_logged == list(range(1, len(made) + 1))

    shown = [
        History(tmp_path / name / "history").read(rows, steps_per_epoch=made.batches_per_epoch)
        for name in ("whole", "stopped")
    ]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert shown[0].margins.shape == shown[0].losses.shape == (EPOCHS, rows)
    # every epoch visits every example, and of four classes the label's probability is at most
    # that against the strongest rival alone
    assert (np.exp(-shown[0].losses) <= 1 / (1 + np.exp(-shown[0].margins)) + 1e-6).all()

    finished, same = train("whole", stop_at=1)  # nothing is left to do: no step is taken
    assert_trees_equal(finished, whole)
    assert same == examples


@pytest.mark.parametrize("asked_at", [1, 4, 6])
def test_asked_to_stop_it_saves_that_step_and_goes_on_there(
    shop: Any, train: Any, tmp_path: Path, assert_trees_equal: Any, asked_at: int
) -> None:
    """Before the first checkpoint, where one is due anyway, and at the end of an epoch."""
    whole, examples = train("whole")
    total = len(shop.planned(EPOCHS))
    with pytest.raises(StoppedError, match=rf"uniform-0 .* after step {asked_at} of {total}: re"):
        train("stopped", asked_at=asked_at)
    checkpoints = RunCheckpoints(tmp_path / "stopped" / "checkpoints")
    assert checkpoints.latest_step == asked_at
    checkpoints.close()
    resumed, again = train("stopped")
    assert_trees_equal(resumed, whole)
    assert again == examples
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")


def test_nan_names_step_and_examples_and_keeps_the_checkpoint_before(
    shop: Any, train: Any, tmp_path: Path, assert_trees_equal: Any
) -> None:
    row = shop.planned(EPOCHS)[5]["row"][2]
    with pytest.raises(NumericalError) as caught:
        train("broken", spoil=6)
    message = str(caught.value)
    assert "run uniform-0: loss nan" in message
    assert f"at step 6, example ids id-{row}:" in message
    assert "\n" not in message

    with pytest.raises(KilledError):
        train("until", stop_at=5)
    checkpoints = [RunCheckpoints(tmp_path / one / "checkpoints") for one in ("broken", "until")]
    assert [one.latest_step for one in checkpoints] == [4, 4]
    state = states.create(shop.params, OPTIMIZER, shop.mesh, seed=3)
    kept, good = (one.restore(state)[0] for one in checkpoints)
    for one in checkpoints:
        one.close()
    assert_trees_equal(kept, good)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(kept.params))


def test_a_checkpoint_is_not_written_after_a_step_that_broke(train: Any, tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="at step 4, "):
        train("broken", spoil=4)  # a step at whose end a checkpoint is due
    checkpoints = RunCheckpoints(tmp_path / "broken" / "checkpoints")
    assert checkpoints.latest_step is None
    checkpoints.close()


def test_a_gradient_that_is_not_finite_names_all_rows(tmp_path: Path) -> None:
    """Where every loss is finite and the gradient is not, no single row can be blamed."""
    metrics = {
        "loss": jnp.float32(1.0),
        "gradient_norm": jnp.float32(jnp.inf),
        "losses": jnp.ones(4),
        "row": jnp.array([7, 5, 9, -1]),
    }
    ids = np.array([f"id-{i}" for i in range(10)])
    kept: list[Any] = []
    report = loop.Report(2, {"label": np.ones(4)}, metrics, tokens=12, slots=16, flops=1)
    with pytest.raises(
        NumericalError,
        match=r"norm inf at step 2, example ids id-7, id-5, id-9: lower pretrain\.learning_rate",
    ):
        loop._checked(
            report,
            meter=StepMeter(None, []),
            run=dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, task="masked")),
            example_ids=ids,
            observers=Observers(
                RunCheckpoints(tmp_path / "steps"),
                MetricsLog(tmp_path / "metrics.jsonl"),
                CostMeter(tmp_path / "cost.json"),
                Console(quiet=True),
                checkpoint_every=1,
                log_every=1,
                replay=lambda step, batch: kept.append((step, batch)),
            ),
        )
    assert kept == [(2, report.batch)]


@pytest.mark.parametrize(
    ("patience", "values", "ends"),
    [
        (0, (0.5, 0.4, 0.3, 0.2), 4),
        (1, (0.5, 0.4, 0.9, 0.9), 2),
        (2, (0.5, 0.4, 0.6, 0.6), 4),
        (2, (0.5, 0.4, 0.5, 0.9), 3),
        (4, (0.5, 0.4, 0.3, 0.2), 4),
    ],
)
def test_a_run_ends_after_epochs_that_are_no_better(
    shop: Any, train: Any, patience: int, values: tuple[float, ...], ends: int
) -> None:
    per_epoch = shop.planned(1).batches_per_epoch

    def validate(state: Any) -> dict[str, float]:
        return {loop.METRIC: values[int(state.step) // per_epoch - 1]}

    options = {"validate": validate, "patience": patience, "epochs": 4}
    state, examples = train("run", **options)
    assert int(state.step) == ends * per_epoch
    again, same = train("run", **options)  # a run that has ended goes on no further
    assert (int(again.step), same) == (int(state.step), examples)
