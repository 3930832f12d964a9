"""The batches of prepared pairs, as training runs and passes take them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from sie_jax.data import batches as plans
from sie_jax.data.loading import PlannedBatches
from sie_jax.data.preparing import Prepared
from sie_jax.devices import mesh as meshes


@dataclass(frozen=True)
class Planner:
    """Plans batches of `batch_size` rows over all processes of a mesh."""

    prepared: Prepared
    mesh: Mesh
    batch_size: int

    def rows(self, split: str) -> np.ndarray:
        """All rows of a split."""
        return np.arange(len(self.prepared.lengths[split]))

    def epochs(
        self,
        number: int,
        *,
        seed: int,
        rows: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> PlannedBatches:
        """So many epochs over training rows, all of them where `rows` is None, shuffled by seed.

        weights: float `[N]` of all training rows, 1 where None.
        """
        rows = self.rows("train") if rows is None else rows
        plan = [
            plans.epoch(
                self.prepared.lengths["train"],
                seed=seed,
                epoch=epoch,
                batch_size=self.batch_size,
                boundaries=self.prepared.boundaries,
                rows=rows,
            )
            for epoch in range(number)
        ]
        return self._planned("train", plan, weights)

    def drawn(
        self, number: int, *, seed: int, probabilities: np.ndarray, weights: np.ndarray
    ) -> PlannedBatches:
        """So many epochs' worth of training rows, drawn with replacement by `probabilities`."""
        plan = [
            plans.drawn(
                self.prepared.lengths["train"],
                seed=seed,
                epoch=epoch,
                batch_size=self.batch_size,
                boundaries=self.prepared.boundaries,
                probabilities=probabilities,
            )
            for epoch in range(number)
        ]
        return self._planned("train", plan, weights)

    def in_order(self, split: str, rows: np.ndarray | None = None) -> PlannedBatches:
        """A split's rows, each once, in their order; all of them where `rows` is None."""
        return self._in_order(split, self.prepared.boundaries, rows)

    def in_one_length(self, split: str) -> PlannedBatches:
        """A split's rows in their order, all padded to the greatest length."""
        return self._in_order(split, self.prepared.boundaries[-1:], None)

    def _in_order(
        self, split: str, boundaries: tuple[int, ...], rows: np.ndarray | None
    ) -> PlannedBatches:
        plan = plans.in_order(
            self.prepared.lengths[split],
            batch_size=self.batch_size,
            boundaries=boundaries,
            rows=self.rows(split) if rows is None else rows,
        )
        return self._planned(split, [plan], None)

    def _planned(
        self, split: str, plan: Sequence[Sequence[plans.Batch]], weights: np.ndarray | None
    ) -> PlannedBatches:
        return PlannedBatches(
            self.prepared.tokens(split),
            plan,
            batch_size=self.batch_size,
            pad_token_id=self.prepared.tokenizer.pad_token_id,
            weights=weights,
            share=meshes.local_rows(self.mesh, self.batch_size),
        )
