import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from sie_jax.data import builders
from sie_jax.errors import UserError


def columns(rows: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "input_ids": [generator.integers(0, 9, 3 + i % 5).astype(np.int32) for i in range(rows)],
        "query_length": generator.integers(2, 4, rows).astype(np.int32),
        "label": generator.integers(0, 4, rows).astype(np.int32),
    }


SPLITS = {"train": columns(25, 0), "test": columns(3, 1)}


def write(folder: Path, splits: dict[str, dict[str, Any]]) -> None:
    tables = {
        name: pa.table(columns, schema=builders.TOKENS_SCHEMA) for name, columns in splits.items()
    }
    builders.write(folder, {name: builders.shards(table) for name, table in tables.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens")
    write(path, SPLITS)
    return path


@pytest.mark.parametrize("split", SPLITS)
def test_round_trip_in_the_order_given(folder: Path, split: str) -> None:
    source, wanted = builders.read(folder, split), SPLITS[split]
    assert len(source) == len(wanted["label"])
    for i in range(len(source)):
        record = source[i]
        assert set(record) == {"row", "input_ids", "query_length", "label"}
        assert record["row"] == i
        assert record["label"] == wanted["label"][i]
        assert record["query_length"] == wanted["query_length"][i]
        assert record["input_ids"].dtype == np.int32
        np.testing.assert_array_equal(record["input_ids"], wanted["input_ids"][i])


def test_rows_are_read_at_random(folder: Path) -> None:
    asked = [24, 0, 7, 7]
    records = builders.read(folder, "train").__getitems__(asked)
    assert [record["row"] for record in records] == asked


def test_fields_are_written_in_one_order_by_whatever_process(folder: Path) -> None:
    """Any other order is as likely in each of these records."""
    raw = builders.TokenizedPairs(data_dir=str(folder)).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    for record in raw:
        example = tf_example_pb2.Example.FromString(record)
        assert example.SerializeToString(deterministic=True) == record


def test_what_is_there_is_not_replaced(folder: Path) -> None:
    write(folder, {"train": columns(2, 5), "test": columns(2, 6)})
    assert len(builders.read(folder, "train")) == 25


@pytest.mark.parametrize(("most", "files"), [(16, 3), (2, 2)])
def test_many_files_are_one_split_in_order(
    most: int, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "CHUNK_ROWS", 10)
    monkeypatch.setattr(builders, "MOST_FILES", most)
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 4)  # a file of several pieces
    write(tmp_path, SPLITS)
    assert len(list(tmp_path.rglob("*train.array_record*"))) == files
    test_round_trip_in_the_order_given(tmp_path, "train")


def test_a_missing_shard_is_named_when_it_is_read(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "tokens")
    source = builders.read(copy, "train")
    (shard,) = copy.rglob("*train*")
    shard.unlink()
    with pytest.raises(UserError, match=rf"{copy}: token ids cannot be read .*{shard.name}"):
        source.__getitems__([3])
    next(copy.rglob("dataset_info.json")).unlink()
    with pytest.raises(
        UserError, match=f"{copy}: token ids cannot be read .* rerun the same command"
    ):
        builders.read(copy, "train")
