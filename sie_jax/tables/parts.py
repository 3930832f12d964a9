"""Tables as Parquet files or folders of parts: written by several processes, read in row order.

A folder holds parts `part-<process>-<number>.parquet`, read in the order of their names. Each part
is there whole or not at all, and a folder that a process has not finished is refused. `batches`
reads what is larger than memory, and `joining` reorders and joins it.

The columns are example_id, any of the other identity columns (`provenance.IDENTITY`), and columns
of float32 or of fixed-size lists of float32, each with its provenance.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sie_jax.errors import UserError
from sie_jax.files import whole
from sie_jax.tables.provenance import IDENTITY, Provenance, as_metadata, from_metadata

_TYPES = {name: pa.int32() if name == "label" else pa.string() for name in IDENTITY}
_PART = b"sie_jax.part"
_NAME = re.compile(r"part-(\d+)-(\d+)\.parquet")
# of rows held in memory: few where a row is a long vector
_MOST_ROWS, _MOST_BYTES = 1 << 20, 256 << 20


def files_of(path: Path) -> list[Path]:
    """The files of a table in the order of their rows.

    Raises:
      UserError: there is no table, a process has not finished it, or its parts are of different
        runs.
    """
    if path.is_file():
        return [path]
    parts = sorted(path.glob("*.parquet"))
    if not parts:
        raise UserError(f"{path}: no table is here: score first, or name another path")
    written: dict[int, list[tuple[int, bool]]] = {}
    counts = set()
    for part in parts:
        match, about = _NAME.fullmatch(part.name), pq.read_metadata(part).metadata or {}
        if match and _PART in about:  # otherwise other software wrote the table
            facts = json.loads(about[_PART])
            counts.add(facts["processes"])
            written.setdefault(int(match[1]), []).append((int(match[2]), facts["last"]))
    if len(counts) > 1 or (counts and max(written) >= max(counts)):
        raise UserError(f"{path}: its parts are of different runs: remove it and score again")
    for process in range(max(counts, default=0)):
        found = written.get(process, [])
        if found != [(i, i == len(found) - 1) for i in range(len(found))] or not found:
            raise UserError(
                f"{path}: process {process} of {max(counts)} has not finished writing: "
                "run it again to its end"
            )
    return parts


def read(path: Path, *, data_version: str | None = None) -> pa.Table:
    """Reads a table into memory.

    Raises:
      UserError: as `files_of`, or as `require` where `data_version` is given.
    """
    if data_version is not None:
        require(path, data_version)
    table = pa.concat_tables([pq.read_table(part) for part in files_of(path)])
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != _PART}
    return table.replace_schema_metadata(metadata)


def read_aligned(
    path: Path, example_ids: pa.Array | pa.ChunkedArray, *, data_version: str | None = None
) -> pa.Table:
    """Reads a table whose rows are exactly these examples, in this order.

    Only then may its columns be used by position. `joining.in_order` reads a table whose rows are
    in another order.

    Raises:
      UserError: the table has other rows, or another order; or as `read`.
    """
    table = read(path, data_version=data_version)
    fix = "remove it and run the same command again"
    if "example_id" not in table.column_names:
        raise UserError(f"{path}: has no column example_id: {fix}")
    if table.num_rows != len(example_ids):
        raise UserError(f"{path}: has {table.num_rows} rows, not {len(example_ids)}: {fix}")
    found = table["example_id"]
    same = pc.fill_null(pc.equal(found, example_ids.cast(pa.string())), False)
    if not pc.all(same).as_py():
        row = pc.index(same, False).as_py()
        raise UserError(
            f"{path}: row {row} is of example {found[row].as_py()!r}, not of "
            f"{example_ids[row].as_py()!r}: {fix}"
        )
    return table


def batches(
    path: Path, *, columns: Sequence[str] | None = None, rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a table in their order, at most `rows` at a time: the memory of one batch.

    Args:
      columns: those to read, in this order; all if None.
      rows: 131,072 if None, and fewer where the rows hold vectors.

    Raises:
      UserError: as `files_of`.
    """
    parts = files_of(path)
    rows = rows or rows_in_memory(pq.read_schema(parts[0])) // 8
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                yield batch if columns is None else batch.select(columns)


def write_parts(
    folder: Path,
    tables: Iterable[pa.Table],
    *,
    process_index: int,
    process_count: int = 1,
    provenance: Mapping[str, Provenance],
    part_rows: int | None = None,
) -> None:
    """Writes the rows of one process as the parts `part-<process>-<number>.parquet` of `folder`.

    Rows of `tables` are regrouped: each part has `part_rows` rows, and the last one the rest. What
    this process wrote there before is removed first. Every process writes to the same folder, in
    any order. The table can be read once the last part of every process is there.

    Memory: one part and one of `tables`.

    Args:
      tables: at least one, all of one schema, as this module's first lines say. If there are no
        rows, give one empty table.
      process_index, process_count: as `jax.process_index()` and `jax.process_count()`.
      provenance: of every column but the identity, all of one data version.
      part_rows: 1,048,576 if None, and fewer where the rows hold vectors.

    Raises:
      ValueError: a column has another type, an example_id is null, the schemas differ, there is no
        table, there is no such process, or `provenance` is not of these columns.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"there is no process {process_index} among {process_count} processes")
    for old in folder.glob(f"part-{process_index:05}-*.parquet"):
        old.unlink()
    remaining = iter(tables)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"no tables for {folder}: give an empty one if there are no rows")
    _check_types(first.schema)
    kept = as_metadata(first, provenance)
    part_rows = part_rows or rows_in_memory(first.schema)
    groups = regrouped(chain([first], remaining), part_rows)
    for number, (part, last) in enumerate(groups):
        if part["example_id"].null_count:
            raise ValueError(f"{part['example_id'].null_count} rows of a part have no example_id")
        about = json.dumps({"processes": process_count, "last": last})
        part = part.replace_schema_metadata({**kept, _PART: about.encode()})
        with whole(folder / f"part-{process_index:05}-{number:05}.parquet") as temporary:
            # a reader holds a row group at a time
            pq.write_table(part, temporary, row_group_size=-(-part_rows // 8))


def provenance(path: Path) -> dict[str, Provenance]:
    """Where each column of scores of a table comes from; empty if the table does not say.

    Raises:
      UserError: the parts of a folder say different things; or as `files_of`.
    """
    several = [from_metadata(pq.read_metadata(part).metadata) for part in files_of(path)]
    if any(one != several[0] for one in several):
        raise UserError(f"{path}: its parts are of different runs: remove it and score again")
    return several[0]


def version_of(path: Path) -> str:
    """The version of the data that a table was computed on.

    Raises:
      UserError: the table does not say; or as `provenance`.
    """
    origin = provenance(path)
    if not origin:
        raise UserError(f"{path}: does not say on what data it was computed: score again")
    return next(iter(origin.values())).data_version  # the same for all columns (`as_metadata`)


def require(path: Path, data_version: str) -> None:
    """Checks that the scores of a table were computed on the data of this version.

    Raises:
      UserError: they were not, or as `version_of`.
    """
    found = version_of(path)
    if found != data_version:
        raise UserError(
            f"{path}: was computed on data {found[:12]}, but this is data {data_version[:12]}: "
            "remove it and score again, or go back to the data it was computed on"
        )


def rows_in_memory(schema: pa.Schema) -> int:
    """How many rows of these columns may be held in memory at a time."""
    lists = [kind for kind in schema.types if pa.types.is_fixed_size_list(kind)]
    width = sum(kind.list_size * kind.value_type.byte_width for kind in lists)
    return max(8, min(_MOST_ROWS, _MOST_BYTES // max(width, 1)))


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[tuple[pa.Table, bool]]:
    """The same rows in tables of `rows` rows, and of 0 to `rows` in the last, which has True."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        if held and not table.schema.equals(held[0].schema):
            raise ValueError(f"tables of different columns: {table.schema}; {held[0].schema}")
        while count + table.num_rows > rows:  # more follows: this one is not the last
            yield pa.concat_tables([*held, table.slice(0, rows - count)]), False
            table = table.slice(rows - count)
            held, count = [], 0
        held.append(table)
        count += table.num_rows
    yield pa.concat_tables(held), True


def _check_types(schema: pa.Schema) -> None:
    if "example_id" not in schema.names:
        raise ValueError("a table needs a column example_id")
    for field in schema:
        kind = field.type
        if (expected := _TYPES.get(field.name, pa.float32())) == kind:
            continue
        if field.name not in _TYPES and pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        if kind != expected:
            raise ValueError(f"column {field.name} is {field.type}, expected {expected}")
