"""The section `train`: the optimiser, its schedule, and how many seeds repeat the comparison."""

import dataclasses
from typing import Protocol

import optax

from sie_jax import sections
from sie_jax.data.lists import LEAST
from sie_jax.errors import UserError
from sie_jax.tasks import TASKS, apart, listed
from sie_jax.tasks.contrastive import TEMPERATURE
from sie_jax.training import state

SELECTIONS = ("epochs", "averages", "interpolations")


class Telling(Protocol):
    """What of a section changes no result: steps between checkpoints and lines of the log, and the
    first and the last step to be profiled.
    """

    checkpoint_every: int
    log_every: int
    profile_steps: tuple[int, ...]


def check_telling(train: Telling) -> None:
    """Raises UserError for the first of these that cannot work."""
    for field in ("checkpoint_every", "log_every"):
        sections.at_least(f"train.{field}", getattr(train, field), 1)
    steps = train.profile_steps
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        raise UserError(
            f"train.profile_steps is {','.join(map(str, steps))}: give the first and the last "
            "step, counted from 1, as in 100,110"
        )


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """The optimiser, its schedule, and how many seeds repeat the comparison."""

    batch_size: int = 32  # pairs in a step, over all devices
    learning_rate: float = 1e-3  # the highest of the schedule
    learning_rates: tuple[float, ...] = ()  # rates to try on validation queries; empty: none
    epochs: int = 3  # passes over the training pairs
    warmup_fraction: float = 0.1  # share of the steps in which the learning rate rises from 0
    weight_decay: float = 0.01  # the weight decay of AdamW
    clip_norm: float = 1.0  # the norm to which the gradient of a batch is clipped
    layer_decay: float = 1.0  # each layer's learning rate is this share of the next one's
    frozen_layers: int = 0  # the first layers that stay as they start, the embeddings with them
    # what may replace the last weights where the validation queries say so: epochs, averages,
    # interpolations
    select: tuple[str, ...] = ()
    # epochs without a better nDCG@10 on the validation queries after which a run ends; 0: none
    patience: int = 0
    seed: int = 0  # the first seed
    # how many seeds repeat the comparison
    seeds: int = dataclasses.field(default=1, metadata=sections.TELLS)
    folds: int = 0  # of the training queries, for out-of-fold predictions; 0: none
    # what is learnt of a pair: graded, regression, listwise, pairwise, lambda_loss, approx_ndcg or
    # contrastive
    task: str = "graded"
    list_size: int = 16  # the most items of a query that a task of lists takes in an epoch
    temperature: float = TEMPERATURE  # of contrastive, by which cosines are divided
    # steps between two checkpoints
    checkpoint_every: int = dataclasses.field(default=200, metadata=sections.TELLS)
    # steps between two lines of the log
    log_every: int = dataclasses.field(default=20, metadata=sections.TELLS)
    # the first and the last step of every run to be profiled, as in 100,110; empty: none
    profile_steps: tuple[int, ...] = dataclasses.field(default=(), metadata=sections.TELLS)

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("batch_size", "epochs", "seeds"):
            sections.at_least(f"train.{field}", getattr(self, field), 1)
        if self.folds == 1 or self.folds < 0:
            raise UserError(f"train.folds is {self.folds}: give at least 2, or 0 for none")
        # the seed of a run is an int32 on the device
        sections.between("train.seed", self.seed, 0, 2**31 - 1 - self.seeds)
        sections.positive("train.learning_rate", self.learning_rate)
        for rate in self.learning_rates:
            sections.positive("train.learning_rates", rate)
        sections.positive("train.clip_norm", self.clip_norm)
        sections.positive("train.layer_decay", self.layer_decay)
        sections.between("train.layer_decay", self.layer_decay, 0.0, 1.0)
        sections.at_least("train.frozen_layers", self.frozen_layers, 0)
        sections.at_least("train.patience", self.patience, 0)
        for one in self.select:
            sections.one_of("train.select", one, SELECTIONS)
        sections.between("train.warmup_fraction", self.warmup_fraction, 0.0, 1.0)
        sections.at_least("train.weight_decay", self.weight_decay, 0)
        sections.one_of("train.task", self.task, TASKS)
        sections.at_least("train.list_size", self.list_size, LEAST)
        sections.positive("train.temperature", self.temperature)
        check_telling(self)

    def schedule(self) -> "Schedule":
        """What of this section makes a run what it is."""
        names = [field.name for field in dataclasses.fields(Schedule)]
        made = Schedule(**{name: getattr(self, name) for name in names})
        if not listed(self.task):
            made = dataclasses.replace(made, list_size=0)
        return made if apart(self.task) else dataclasses.replace(made, temperature=0.0)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a run is optimised: its batches, its learning rate, for how long, and what it learns.

    select: see `stages.selection`. patience: see `loop.fit`. task: of `tasks.TASKS`, "masked" or
    "next_item". list_size: see `data.planning.Planner`; 0 where no loss reads other rows.
    temperature: of `contrastive`; 0 of every other task.
    """

    batch_size: int
    learning_rate: float
    epochs: int
    warmup_fraction: float
    weight_decay: float
    clip_norm: float
    layer_decay: float
    frozen_layers: int
    select: tuple[str, ...]
    patience: int
    task: str
    list_size: int
    temperature: float = 0.0

    @property
    def options(self) -> dict[str, float]:
        """What `tasks.TASKS` takes of it."""
        return {"temperature": self.temperature} if self.temperature else {}

    def optimizer(self, *, total_steps: int) -> optax.GradientTransformation:
        """AdamW with this schedule over so many steps (`state.make_optimizer`)."""
        return state.make_optimizer(
            learning_rate=self.learning_rate,
            total_steps=total_steps,
            warmup_fraction=self.warmup_fraction,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            layer_decay=self.layer_decay,
            frozen_layers=self.frozen_layers,
        )
