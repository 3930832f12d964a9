"""What watches a training run, and what is kept of it: none of it changes a result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sie_jax.data.loading import Arrays
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.cost import CostMeter
from sie_jax.training.history import History
from sie_jax.training.logs import MetricsLog


@dataclass(frozen=True)
class Observers:
    """Who is told of a run while it trains, and where it is kept.

    checkpoints: saved every `checkpoint_every` steps and at the end of every epoch.
    log: told every `log_every` steps. cost: what the run takes.
    history: given the margin and the loss that each step computed for each of its examples.
    stop: asked after every step, of all processes alike, whether to end there.
    flops: of a step on `[rows, length]` tokens; peak: FLOP/s of all devices together. None where
      they are not known.
    profile: first and last step to trace into `profile_folder`, or no steps.
    replay: given the step and its batch where a loss is not finite.
    """

    checkpoints: RunCheckpoints
    log: MetricsLog
    cost: CostMeter
    console: Console
    checkpoint_every: int
    log_every: int
    history: History | None = None
    stop: Callable[[int], bool] = lambda step: False
    flops: Callable[[int, int], int | None] = lambda rows, length: None
    peak: float | None = None
    profile: tuple[int, ...] = ()
    profile_folder: Path = Path("profile")
    replay: Callable[[int, Arrays], None] = lambda step, batch: None
