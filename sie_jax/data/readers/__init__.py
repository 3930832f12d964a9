"""Reading files once for all sources: each file's records with their place, or its columns."""

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
from etils import epath

from sie_jax.data.readers import delimited, files, json_lines, parquet
from sie_jax.data.readers.records import Record, Wanted


def records(file: epath.Path, wanted: Wanted) -> Iterator[Record]:
    """Every record of a file in order, read as they are taken.

    Raises:
      UserError: the file cannot be read as a whole, or lacks a wanted column.
    """
    kind = files.kind(file)
    if kind == files.PARQUET:
        return parquet.read(file, wanted)
    if kind == files.JSON_LINES:
        return json_lines.read(file, wanted)
    header, found = delimited.read(file, delimiter=files.DELIMITERS[kind])
    wanted.check(file, header)
    return found


def decimal_comma(file: epath.Path) -> bool:
    """Whether 1,5 is a number of a file: of CSV whose fields are separated by semicolons.

    Spreadsheets save a sheet so where numbers are written with a comma.
    """
    kind = files.kind(file)
    return kind == ".csv" and delimited.separator(file, files.DELIMITERS[kind]) == ";"


def columns(file: epath.Path, wanted: Wanted, rows: int) -> Iterator[tuple[pa.Table, list[Record]]]:
    """The wanted columns of a file, at most `rows` records at a time.

    Each piece comes with those of its records that have no cells. Columns of text files hold
    strings; those of Parquet files keep their types.

    Raises:
      UserError: as `records`; and where a string of a Parquet file is not UTF-8.
    """
    if files.kind(file) == files.PARQUET:
        for table in parquet.columns(file, wanted, rows):
            yield table, []
        return
    found = records(file, wanted)
    while piece := list(islice(found, rows)):
        cells = [record.cells for record in piece if not record.reason]
        texts = {
            name: pa.array([one[name] for one in cells], pa.string()) for name in wanted.columns
        }
        yield pa.table(texts), [record for record in piece if record.reason]


def types(file: epath.Path) -> dict[str, pa.DataType]:
    """The columns of a file, each with the type to which its cells can be cast.

    Numbers and truth values of JSON lines and Parquet have types of their own, and so have bytes of
    Parquet, which need not be text. All else is a string.

    Raises:
      UserError: the file has no header that can be read.
    """
    kind = files.kind(file)
    if kind == files.PARQUET:
        return parquet.types(file)
    if kind == files.JSON_LINES:
        return json_lines.types(file)
    header, _ = delimited.read(file, delimiter=files.DELIMITERS[kind])
    return dict.fromkeys(header, pa.string())


def column_names(parts: Sequence[epath.Path], most_lines: int | None = None) -> list[str]:
    """The columns of a source: those of its first file; of JSON lines the keys of all objects.

    most_lines: of JSON lines, how many lines are looked at; all where None.

    Raises:
      UserError: the first file has no header that can be read.
    """
    kind = files.kind(parts[0])
    if kind == files.PARQUET:
        return parquet.names(parts[0])
    if kind == files.JSON_LINES:
        return json_lines.keys(parts, most_lines)
    header, _ = delimited.read(parts[0], delimiter=files.DELIMITERS[kind])
    return header
