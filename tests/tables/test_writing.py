"""Tables written as text are read back as they were."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.outputs import SUFFIXES
from sie_jax.tables import writing

TABLE = pa.table(
    {
        "text": pa.array(['red "lamp", 2', None, "línea\nnueva"]),
        "score": pa.array([0.1, None, 1e22]),
        "rank": pa.array([1, 2, None], pa.int32()),
        "sold": pa.array([True, None, False]),
    }
)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_two_tables_in_one_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "no suffix"
    with writing.written(path, kind, TABLE.schema) as write:
        write(TABLE)
        write(TABLE.slice(0, 1))
    rows = [*TABLE.to_pylist(), TABLE.to_pylist()[0]]
    if kind == ".parquet":
        assert pq.read_table(path).to_pylist() == rows
    elif kind == ".jsonl":
        assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == rows
    else:
        with path.open(encoding="utf-8", newline="") as file:
            header, *found = csv.reader(file)
        assert header == TABLE.column_names
        assert found[:2] == [['red "lamp", 2', "0.1", "1", "true"], ["", "", "2", ""]]
        assert found[2] == ["línea\nnueva", "1e+22", "", "false"]
        assert found[3] == found[0]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_without_rows_has_its_columns_where_it_can(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"empty{kind}"
    with writing.written(path, kind, TABLE.schema):
        pass
    assert path.is_file()
    if kind == ".csv":
        assert path.read_text() == '"text","score","rank","sold"\n'
