"""Weigh: importance.parquet, and which columns and weights it has."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_runs import tiny

from sie_jax import importance
from sie_jax.data import preparing
from sie_jax.importance import policies
from sie_jax.tables import hashing, parts


def test_importance_parquet(finished: Path) -> None:
    table = pq.read_table(finished / "importance.parquet")
    assert table.column_names == [
        *("example_id", "query_id", "item_id", "label"),
        *importance.SCORES,
        "weight",
    ]
    training = preparing.load(finished).split("train")
    for name in ("example_id", "query_id", "item_id", "label"):
        assert table[name].to_pylist() == training[name].to_pylist()
    weight = table["weight"].to_numpy()
    assert weight.dtype == np.float32
    assert weight.astype(np.float64).mean() == pytest.approx(1.0, rel=1e-6)
    norms = jnp.asarray(table["grad_norm"].to_numpy())
    wanted = policies.Clipped()(norms) * len(weight)
    np.testing.assert_allclose(weight, wanted, rtol=1e-6)


def test_the_scores_are_those_of_the_stage_score(finished: Path) -> None:
    table, scores = (
        pq.read_table(finished / f"{name}.parquet") for name in ("importance", "scores")
    )
    for name in ("example_id", *importance.SCORES):
        assert table[name].equals(scores[name])


def test_columns_say_where_they_come_from(finished: Path) -> None:
    origin = parts.provenance(finished / "importance.parquet")
    assert list(origin) == [*importance.SCORES, "weight"]
    assert [one.score for one in origin.values()] == [*importance.SCORES, "clipped"]
    version = hashing.data_version(preparing.load(finished).split("train"))
    assert {(one.seed, one.data_version) for one in origin.values()} == {(0, version)}


@pytest.mark.parametrize(("balance", "column"), [("class", "label"), ("query", "query_id")])
def test_weights_are_balanced_and_mixed_as_the_config_says(
    finished: Path, balance: str, column: str
) -> None:
    table = pq.read_table(finished / "importance.parquet")
    training = preparing.load(finished).split("train")
    section = tiny(balance=balance, mix_uniform=0.25, power=2.0, keep_fraction=0.5).importance
    norms, rows = table["grad_norm"].to_numpy(), table.num_rows
    groups, of_row = np.unique(table[column].to_pylist(), return_inverse=True)
    made = section.weights(norms, training, "tempered")
    values = norms.astype(np.float64) ** 2
    counts = np.bincount(of_row) / rows
    wanted = 0.75 * values * counts[of_row] / np.bincount(of_row, values)[of_row] + 0.25 / rows
    # float32 sums of some hundred terms
    np.testing.assert_allclose(made, wanted, rtol=1e-4)
    assert len(groups) > 1
    section.balance, section.mix_uniform = "", 0.0
    lowest, highest = (
        set(np.flatnonzero(section.weights(norms, training, name)))
        for name in ("keep", "keep_hardest")
    )
    assert lowest | highest == set(range(rows))
    assert norms[list(lowest)].max() <= norms[list(highest)].min()
