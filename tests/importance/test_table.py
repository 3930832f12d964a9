"""The importance table as it is built from scores and weights."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.importance import table
from sie_jax.tables import parts
from sie_jax.tables.provenance import Provenance
from sie_jax.tables.spool import write_parquet


@pytest.fixture
def identity() -> pa.Table:
    return pa.table(
        {
            "example_id": ["a", "b", "c"],
            "query_id": ["q", "q", "r"],
            "item_id": ["1", "2", "3"],
            "label": pa.array([0, 3, 1], pa.int32()),
            "title": ["not", "part", "of it"],
        }
    )


def test_columns_and_mean_one_weights(identity: pa.Table) -> None:
    weights = np.array([0.5, 0.25, 0.25])
    made = table.build(identity, {"loss": np.array([1.0, 2.0, 3.0])}, weights)
    assert made.column_names == ["example_id", "query_id", "item_id", "label", "loss", "weight"]
    np.testing.assert_allclose(made["weight"].to_numpy(), weights * 3)
    assert made["weight"].to_numpy().mean() == pytest.approx(1.0)


def test_lengths_must_agree(identity: pa.Table) -> None:
    with pytest.raises(ValueError, match="loss has shape"):
        table.build(identity, {"loss": np.zeros(2)}, np.zeros(3))


def test_a_built_table_keeps_its_provenance(tmp_path: Path, identity: pa.Table) -> None:
    given = {
        name: Provenance(score=name, checkpoint="run/7", seed=0, data_version="0", config="c")
        for name in ("loss", "weight")
    }
    made = table.build(identity, {"loss": np.zeros(3)}, np.full(3, 1 / 3), provenance=given)
    path = tmp_path / "importance.parquet"
    write_parquet(path, made)
    assert parts.provenance(path) == given
    write_parquet(path, parts.read(path))
    assert parts.provenance(path) == given
