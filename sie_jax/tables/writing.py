"""Tables written as the kind of file that a name ends in: CSV, JSON lines or Parquet."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sie_jax.outputs import SUFFIXES


@contextlib.contextmanager
def written(path: Path, kind: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Gives a function that appends tables of this schema to a new file.

    Columns hold texts, numbers and truth values; a null is an empty cell of CSV, and null in JSON.

    Args:
      path: the file, whatever its name is.
      kind: one of `outputs.SUFFIXES`.
    """
    assert kind in SUFFIXES
    if kind == ".parquet":
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
    elif kind == ".csv":
        with pyarrow.csv.CSVWriter(path, schema) as delimited:
            yield delimited.write_table
    else:
        with path.open("w", encoding="utf-8", newline="\n") as file:

            def append(table: pa.Table) -> None:
                for row in table.to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

            yield append
