"""Tables on disk: what went in comes out, and no file is left."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.tables.spool import (
    filtered,
    hash_partitions,
    pieces,
    spool,
    spool_rows,
    write_parquet,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_batches_become_one_table_and_leave_no_file(folder: Path) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    batches = [
        pa.record_batch({"a": [i], "b": [None if i % 2 else str(i)]}, schema=schema)
        for i in range(5)
    ]
    table = spool(batches, schema)
    assert table.equals(pa.Table.from_batches(batches))
    assert list(folder.iterdir()) == []
    assert spool([], schema).equals(schema.empty_table())


def test_what_was_read_stays_while_others_are_written(folder: Path) -> None:
    """Its pages are given back to the system meanwhile, and read again from the file."""
    table = pa.table({"a": range(100_000)})
    first = spool(table.to_batches(), table.schema)
    assert first.equals(table)
    assert spool(first.to_batches(), first.schema).equals(table)
    assert first.equals(table)


def test_a_failure_while_batches_are_made_leaves_no_file(folder: Path) -> None:
    def broken() -> list[pa.RecordBatch]:
        raise KeyError("a")

    schema = pa.schema([("a", pa.int64())])
    with pytest.raises(KeyError):
        spool((batch for _ in range(1) for batch in broken()), schema)
    assert list(folder.iterdir()) == []


def test_rows_become_one_table_a_piece_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 16)  # two rows a piece
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    rows = [{"a": "0", "b": "x"}, {"a": "1"}, {"b": "y", "more": "left out"}]
    table = spool_rows(iter(rows), schema)
    assert table.to_pylist() == [
        {"a": "0", "b": "x"},
        {"a": "1", "b": None},
        {"a": None, "b": "y"},
    ]
    assert [len(chunk) for chunk in table["a"].chunks] == [2, 1]
    assert list(folder.iterdir()) == []
    assert spool_rows([], schema).equals(schema.empty_table())


def test_filtered_equals_a_filter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 3)
    table = pa.table({"a": range(10), "b": [str(i) for i in range(10)]})
    mask = pa.array([i % 3 == 0 for i in range(10)])
    assert filtered(table, mask).equals(table.filter(mask))
    assert filtered(table, pa.array([False] * 10)).num_rows == 0


def test_pieces_make_up_the_table() -> None:
    table = pa.table({"a": range(10)})
    found = list(pieces(table, 4))
    assert [start for start, _ in found] == [0, 4, 8]
    assert pa.concat_tables(piece for _, piece in found).equals(table)
    assert list(pieces(table.slice(0, 0))) == []


@pytest.mark.parametrize("rows", [0, 10])
def test_parquet_round_trip(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 3)
    table = pa.table({"x": pa.array(range(10), pa.int32()), "y": [None, *map(str, range(9))]})
    write_parquet(tmp_path / "table.parquet", table.slice(0, rows))
    assert pq.read_table(tmp_path / "table.parquet").equals(table.slice(0, rows))


def test_what_is_equal_meets_in_one_part_in_the_order_it_came(folder: Path) -> None:
    dtype = np.dtype([("row", np.int64), ("value", np.uint64)])
    records = np.zeros(1000, dtype)
    records["row"] = range(1000)
    records["value"] = np.random.default_rng(0).permutation(50)[records["row"] % 50]
    with hash_partitions(dtype, parts=8) as partitions:
        partitions.add(records["value"][:400], records[:400])
        partitions.add(records["value"][400:], records[400:])
        parts = list(partitions)
    assert len(parts) == 8
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), records)
    for part in parts:
        assert (np.diff(part["row"]) > 0).all()
    where = [{*part["value"].tolist()} for part in parts]
    assert sum(map(len, where)) == 50
    assert list(folder.iterdir()) == []
