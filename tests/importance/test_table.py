from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.files import write_parquet
from sie_jax.importance import table


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


def test_file_and_folder_of_parts_read_alike(tmp_path: Path, identity: pa.Table) -> None:
    write_parquet(tmp_path / "one.parquet", identity)
    write_parquet(tmp_path / "parts" / "part-0.parquet", identity.slice(0, 2))
    write_parquet(tmp_path / "parts" / "part-1.parquet", identity.slice(2))
    assert table.read(tmp_path / "one.parquet") == identity
    assert table.read(tmp_path / "parts") == identity
