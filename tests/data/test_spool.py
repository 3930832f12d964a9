"""Tables that lie on disk: what went in comes out, and no file is left."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from sie_jax.data.spool import filtered, spool, spool_rows


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
    """Its pages go back to the system then, and come again from the file."""
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
    monkeypatch.setattr("sie_jax.data.spool.CHUNK_ROWS", 16)  # two rows a piece
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
    monkeypatch.setattr("sie_jax.data.spool.CHUNK_ROWS", 3)
    table = pa.table({"a": range(10), "b": [str(i) for i in range(10)]})
    mask = pa.array([i % 3 == 0 for i in range(10)])
    assert filtered(table, mask).equals(table.filter(mask))
    assert filtered(table, pa.array([False] * 10)).num_rows == 0
