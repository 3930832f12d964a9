"""The section `train` of a recommender: the optimiser, its schedule, and what a step looks at."""

import dataclasses

from sie_jax import sections
from sie_jax.training.section import Schedule, check_telling

TASK = "next_item"


@dataclasses.dataclass(slots=True, kw_only=True)
class HistoryTrainConfig:
    """The optimiser, its schedule, and how many seeds repeat the comparison."""

    batch_size: int = 256  # histories in a step, over all devices
    learning_rate: float = 2e-3  # the highest of the schedule
    epochs: int = 20  # passes over the training histories
    warmup_fraction: float = 0.05  # share of the steps in which the learning rate rises from 0
    weight_decay: float = 0.01  # the weight decay of AdamW
    clip_norm: float = 5.0  # the norm to which the gradient of a batch is clipped
    # epochs without a better nDCG@10 on the validation users after which a run ends; 0: none
    patience: int = 0
    # items that stand for all in the loss of a training step; 0: all of them
    negatives: int = 0
    buckets: int = 3  # how many lengths batches are padded to; each is compiled once
    seed: int = 0  # the first seed
    # how many seeds repeat the comparison
    seeds: int = dataclasses.field(default=1, metadata=sections.TELLS)
    # steps between two checkpoints
    checkpoint_every: int = dataclasses.field(default=500, metadata=sections.TELLS)
    # steps between two lines of the log
    log_every: int = dataclasses.field(default=20, metadata=sections.TELLS)
    # the first and the last step of every run to be profiled, as in 100,110; empty: none
    profile_steps: tuple[int, ...] = dataclasses.field(default=(), metadata=sections.TELLS)

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("batch_size", "epochs", "seeds", "buckets"):
            sections.at_least(f"train.{field}", getattr(self, field), 1)
        for field in ("patience", "negatives", "weight_decay"):
            sections.at_least(f"train.{field}", getattr(self, field), 0)
        for field in ("learning_rate", "clip_norm"):
            sections.positive(f"train.{field}", getattr(self, field))
        sections.between("train.seed", self.seed, 0, 2**31 - 1 - self.seeds)
        sections.between("train.warmup_fraction", self.warmup_fraction, 0.0, 1.0)
        check_telling(self)

    def schedule(self) -> Schedule:
        """What of this section makes a run what it is, as all training runs are described."""
        return Schedule(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            warmup_fraction=self.warmup_fraction,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            layer_decay=1.0,
            frozen_layers=0,
            select=(),
            patience=self.patience,
            task=TASK,
            list_size=0,
        )
