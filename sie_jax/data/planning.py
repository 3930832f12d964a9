"""The batches of prepared pairs, as training runs and passes take them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sie_jax.data import batches as plans
from sie_jax.data import lists, tokenization
from sie_jax.data.loading import Apart, PlannedBatches
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import SPLITS
from sie_jax.devices import mesh as meshes


@dataclass(frozen=True)
class Planner:
    """Plans batches of `batch_size` rows over all processes of a mesh.

    list_size: the most rows of a query that train together as one list; 0 where rows are separate.
    apart: whether query and item are read apart, and every item of a batch ranked for every query.
    Then a list needs one row, and sweeps go list by list too.
    features: float32 `[N, F]` of each split's rows, for a model that takes some; None: none.
    """

    prepared: Prepared
    mesh: Mesh
    batch_size: int
    list_size: int = 0
    apart: bool = False
    features: Mapping[str, np.ndarray] | None = None

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
        lengths, boundaries = self.prepared.lengths["train"], self.prepared.boundaries
        if self.list_size:
            shares = meshes.shares(self.mesh)
            least = 1 if self.apart else lists.LEAST
            shape = lists.Shape(shares, self.batch_size // shares, self.list_size, least)
            plan = [
                lists.epoch(
                    lengths,
                    self.queries["train"],
                    seed=seed,
                    epoch=epoch,
                    shape=shape,
                    boundaries=boundaries,
                    rows=rows,
                )
                for epoch in range(number)
            ]
        else:
            plan = [
                plans.epoch(
                    lengths,
                    seed=seed,
                    epoch=epoch,
                    batch_size=self.batch_size,
                    boundaries=boundaries,
                    rows=rows,
                )
                for epoch in range(number)
            ]
        return self._planned("train", plan, weights)

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch over all training rows has."""
        return len(self.epochs(1, seed=0))

    @functools.cached_property
    def queries(self) -> dict[str, np.ndarray]:
        """The number of each row's query, by split."""
        return {split: self._numbers(split, "query_id") for split in SPLITS}

    @functools.cached_property
    def taken_apart(self) -> dict[str, Apart]:
        """What is known of each split's rows where query and item are read apart."""
        tokenizer, found = self.prepared.tokenizer, {}
        longest = self.prepared.boundaries[-1]  # no text of a pair has more tokens
        for split in SPLITS:
            queries = self.prepared.split(split)["query"].to_pylist()
            lengths = np.minimum(tokenization.query_lengths(tokenizer, queries), longest)
            found[split] = Apart(lengths, self._numbers(split, "item_id"), longest)
        return found

    def _numbers(self, split: str, column: str) -> np.ndarray:
        """A number for each row of a split, equal where the column is."""
        values = self.prepared.split(split)[column].to_pylist()
        return np.unique(np.asarray(values, str), return_inverse=True)[1]

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
        rows = self.rows(split) if rows is None else rows
        options: dict[str, Any] = {"batch_size": self.batch_size, "boundaries": boundaries}
        lengths = self.prepared.lengths[split]
        if self.apart:
            plan = lists.in_order(lengths, self.queries[split], rows=rows, **options)
        else:
            plan = plans.in_order(lengths, rows=rows, **options)
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
            apart=self.taken_apart[split] if self.apart else None,
            features=None if self.features is None else self.features[split],
        )
