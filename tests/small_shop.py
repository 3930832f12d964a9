"""A synthetic shop of some sixty pairs, prepared once, and a BERT of one layer for it."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from compiling import compile_quickly
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from transformers import BertConfig

from sie_jax.data import batches, preparing
from sie_jax.data.loading import PlannedBatches
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import synthetic
from sie_jax.devices import mesh as meshes
from sie_jax.models import PairClassifier
from sie_jax.tasks.graded import Graded

__all__ = ["Shop", "assert_trees_equal", "compile_quickly", "console", "shop"]

BATCH_SIZE = 8


@dataclass(frozen=True)
class Shop:
    prepared: preparing.Prepared
    graphdef: nnx.GraphDef
    params: Any
    mesh: Mesh

    @property
    def task(self) -> Graded:
        """What one pair of the shop is."""
        return Graded(self.graphdef, self.prepared.scale.gains)

    @property
    def rows(self) -> np.ndarray:
        """All training rows."""
        return np.arange(len(self.prepared.lengths["train"]))

    def planned(self, epochs: int = 1, **options: Any) -> PlannedBatches:
        plan = [
            batches.epoch(
                self.prepared.lengths["train"],
                seed=0,
                epoch=epoch,
                batch_size=BATCH_SIZE,
                boundaries=self.prepared.boundaries,
                rows=self.rows,
            )
            for epoch in range(epochs)
        ]
        return self._planned(plan, **options)

    def in_order(self, **options: Any) -> PlannedBatches:
        plan = batches.in_order(
            self.prepared.lengths["train"],
            batch_size=BATCH_SIZE,
            boundaries=self.prepared.boundaries,
            rows=self.rows,
        )
        return self._planned([plan], **options)

    def short_batch(self) -> dict[str, np.ndarray]:
        """The batch with padding rows."""
        made = self.in_order()
        return made[len(made) - 1]

    def _planned(self, plan: list[list[batches.Batch]], **options: Any) -> PlannedBatches:
        return PlannedBatches(
            self.prepared.tokens("train"),
            plan,
            batch_size=BATCH_SIZE,
            pad_token_id=self.prepared.tokenizer.pad_token_id,
            **options,
        )


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    data = DataConfig(max_length=24, buckets=1, vocabulary_size=150)
    selection = data.select(synthetic.read(queries=14, items_per_query=5, seed=1))
    workdir = tmp_path_factory.mktemp("shop")
    preparing.store(selection, workdir, data.encoding())
    prepared = preparing.load(workdir)
    config = BertConfig(
        vocab_size=len(prepared.tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    model = PairClassifier(config, num_labels=len(prepared.scale.names), rngs=nnx.Rngs(0))
    made = Shop(prepared, *nnx.split(model), meshes.make(1))
    assert not made.short_batch()["mask"].all(), "the tests need a batch with padding rows"
    return made


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def assert_trees_equal():
    """All leaves equal to the last bit."""

    def check(ours: Any, theirs: Any) -> None:
        mine_tree: Any = jax.tree.structure(ours)
        assert mine_tree == jax.tree.structure(theirs)
        for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))

    return check
