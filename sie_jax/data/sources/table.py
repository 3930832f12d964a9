"""A team's own table of judged pairs: CSV, TSV, JSON lines or Parquet, one file or a folder."""

import contextlib
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from sie_jax.data.schema import (
    ATTRIBUTE,
    RATER,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    Source,
    normalise_query,
)
from sie_jax.data.sources import delimited
from sie_jax.data.sources.delimited import Cells, Record, is_broken, lines, rejected, shown
from sie_jax.errors import UserError
from sie_jax.tables.spool import filtered, spool_rows

NEEDED = ("query", "title", "label")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
MOST_GRADES = 10  # that a scale is made of without being told
# what to do about a file in which every line is unreadable for one reason
MENDS = {
    "wrong_field_count": "separate a .csv file by commas and a .tsv file by tabs",
    "not_utf8": "convert it to UTF-8",
    "unparsable_line": "give one JSON object a line, or, of CSV and TSV, quotes as in RFC 4180",
}


def read(
    path: str,
    *,
    columns: Mapping[str, str],
    attributes: Sequence[str] = (),
    raters: Sequence[str] = (),
    labels: Sequence[str] = (),
    gains: Sequence[float] | None = None,
) -> Source:
    """The rows of a table, streamed: memory does not grow with the file.

    Ids that the table lacks, and empty cells of ids, are derived: `example_id` is the record's
    number over all parts, from 0 and unreadable ones counted; `query_id` is "q" and `item_id` "i"
    followed by 64 bits of BLAKE2b of the query under `normalise_query` and of the title.

    Args:
      path: a file that ends in one of SUFFIXES, or a folder of such files of one kind, read in the
        order of their names; files whose names begin with "." or "_" are left out. CSV and TSV have
        a header, quotes as in RFC 4180 and are UTF-8, as JSON lines are. Blank lines are no rows.
      columns: field of RAW_SCHEMA → the table's column; NEEDED must be there. An empty name means
        that the table has no such column.
      attributes, raters: further columns, kept as ATTRIBUTE and RATER columns.
      labels: the scale, lowest grade first. Where empty, the labels found must be the integers 0 to
        K − 1 with none missing, 2 ≤ K ≤ MOST_GRADES.
      gains: of the labels; k/(K − 1) for grade k where None.

    Returns:
      Source. Cells are texts: a number of JSON or Parquet stands for itself, whole ones without a
      point; white space around a label, a rating and a split is cut; empty is null. `unreadable`
      has what is no row: `unparsable_line`, `wrong_field_count`, `not_utf8`; and rows with a rating
      outside the scale, `rater_outside_scale`.

    Raises:
      UserError: the path, a column or the scale is wrong, or a file cannot be read as a whole.
    """
    further = {ATTRIBUTE + name: name for name in attributes}
    further |= {RATER + name: name for name in raters}
    for field in NEEDED:
        if not columns.get(field):
            raise UserError(f"data.columns.{field} is empty: name the column that holds it")
    schema = pa.schema([*RAW_SCHEMA, *(pa.field(name, pa.string()) for name in further)])
    unreadable: list[Cells] = []
    counts: Counter[str] = Counter()

    def readable() -> Iterator[Cells]:
        for row in rows(path, columns=columns, further=further):
            if "reason" in row:
                unreadable.append(row)
            else:
                counts[row["label"] or ""] += 1
                yield row

    table = spool_rows(readable(), schema)
    if not table.num_rows:
        raise _no_rows(path, unreadable)
    scale = scale_of(labels, gains, counts, path)
    rejected = pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA)
    inside = np.ones(table.num_rows, bool)
    for name in raters:
        inside &= _on_scale(table[RATER + name], scale, f"{path}: the rater column {name}")
    if not inside.all():
        outside = table.filter(pa.array(~inside))
        reason = pa.array(["rater_outside_scale"] * outside.num_rows, pa.string())
        rejected = pa.concat_tables(
            [rejected, outside.append_column("reason", reason)], promote_options="default"
        )
        table = filtered(table, pa.array(inside))
    return Source(table=table, scale=scale, location=path, unreadable=rejected)


def rows(
    path: str, *, columns: Mapping[str, str], further: Mapping[str, str] | None = None
) -> Iterator[Cells]:
    """Every record of a table in order, as cells by field, ids derived as in `read`.

    A record that is no row has `example_id` "<file>:<line>", its `text` and a `reason`, as in
    `read`; no other has a `reason`.

    Args:
      path: as for `read`.
      columns: field of RAW_SCHEMA → the table's column, `query` and `title` among them. An empty
        name means that the table has no such column.
      further: names of further cells → their columns.

    Raises:
      UserError: as `read`, but for the scale.
    """
    further = further or {}
    mapped = {field: name for field, name in columns.items() if name}
    wanted = [*mapped.values(), *further.values()]
    numbers = itertools.count()
    for file in _files(path):
        for record in _records(file, wanted):
            number = next(numbers)
            if record.reason:
                yield rejected(file, record)
            else:
                yield _row(record.cells, mapped, further, number)


class RowGroup(NamedTuple):
    """A row group of a table's Parquet file: how many rows, and how many are before it.

    before: in the same file; first: in all files.
    """

    file: epath.Path
    group: int
    rows: int
    before: int
    first: int


def row_groups(path: str, wanted: Sequence[str]) -> list[RowGroup] | None:
    """The row groups of all parts of a table, in order; None where it is not Parquet.

    Raises:
      UserError: as `read`, of the path, and of a part that lacks one of the columns `wanted`.
    """
    files, found, first = _files(path), [], 0
    if files[0].suffix.lower() != ".parquet":
        return None
    for file in files:
        try:
            with file.open("rb") as stream:
                metadata = pq.read_metadata(stream)
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(file, error) from None
        _check_columns(file, metadata.schema.to_arrow_schema().names, wanted)
        before = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            found.append(RowGroup(file, group, rows, before, first))
            before, first = before + rows, first + rows
    return found


def rows_of(
    place: RowGroup, *, columns: Mapping[str, str], further: Mapping[str, str]
) -> Iterator[Cells]:
    """What `rows` gives of one row group."""
    mapped = {field: name for field, name in columns.items() if name}
    records = _parquet(
        place.file, [*mapped.values(), *further.values()], [place.group], place.before
    )
    for number, record in enumerate(records, place.first):
        if record.reason:
            yield rejected(place.file, record)
        else:
            yield _row(record.cells, mapped, further, number)


def column_names(path: str) -> list[str]:
    """The table's columns: those of its first file; of JSON lines every key of every file.

    Raises:
      UserError: as `read`, of the path and the header.
    """
    files = _files(path)
    kind = files[0].suffix.lower()
    if kind == ".parquet":
        try:
            with files[0].open("rb") as stream:
                return pq.read_schema(stream).names
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(files[0], error) from None
    if kind == ".jsonl":
        names: dict[str, None] = {}
        for line in itertools.chain.from_iterable(map(lines, files)):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                names |= dict.fromkeys(value) if isinstance(value, dict) else {}
        return list(names)
    header, _ = delimited.read(files[0], delimiter=DELIMITERS[kind])
    return header


def _no_rows(path: str, unreadable: Sequence[Cells]) -> UserError:
    if not unreadable:
        return UserError(f"{path} has no rows: give a table with a header and rows")
    reasons = Counter(row["reason"] or "" for row in unreadable).most_common()
    found = ", ".join(f"{times} {reason}" for reason, times in reasons)
    return UserError(
        f"{path} has {len(unreadable)} lines and no row ({found}); the first is "
        f"{unreadable[0]['example_id']}: {MENDS[reasons[0][0]]}"
    )


def _files(path: str) -> list[epath.Path]:
    place = epath.Path(path)
    if not path or not place.exists():
        raise UserError(f"table: {path!r} does not exist: give a file or a folder with data.path")
    if not place.is_dir():
        files = [place]
    else:
        parts = (one for one in place.iterdir() if not one.name.startswith((".", "_")))
        files = sorted((one for one in parts if not one.is_dir()), key=lambda one: one.name)
    if not files:
        raise UserError(f"table: {path} is an empty folder: give one with {', '.join(SUFFIXES)}")
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise UserError(f"table: {path} holds files of several kinds, {', '.join(kinds)}: keep one")
    if kinds[0] not in SUFFIXES:
        raise UserError(
            f"table: {files[0]} ends in {kinds[0] or 'nothing'!r}: give {', '.join(SUFFIXES)}"
        )
    return files


def _records(file: epath.Path, wanted: Sequence[str]) -> Iterator[Record]:
    kind = file.suffix.lower()
    if kind == ".parquet":
        return _parquet(file, wanted)
    return _json_lines(file, wanted) if kind == ".jsonl" else _delimited(file, wanted)


def _delimited(file: epath.Path, wanted: Sequence[str]) -> Iterator[Record]:
    header, records = delimited.read(file, delimiter=DELIMITERS[file.suffix.lower()])
    _check_columns(file, header, wanted)
    return records


def _check_columns(file: epath.Path, present: Iterable[str], wanted: Sequence[str]) -> None:
    present = list(present)
    lacking = [name for name in wanted if name not in present]
    if lacking:
        raise UserError(
            f"table: {file} has no column {lacking[0]!r}; it has {', '.join(present)}: map the "
            "columns with --config.data.columns.<field>=<column>"
        )


def _json_lines(file: epath.Path, wanted: Sequence[str]) -> Iterator[Record]:
    seen: dict[str, None] = {}
    for number, line in enumerate(lines(file), 1):
        if not line.strip():
            continue
        if is_broken(line):
            yield Record(number, {}, "not_utf8", shown(line))
            continue
        try:
            value = json.loads(line)
            if "\\u" in line:  # half a surrogate pair is no text
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            yield Record(number, {}, "unparsable_line", shown(line))
            continue
        seen |= dict.fromkeys(value)
        yield Record(number, {name: _text(value.get(name)) for name in wanted})
    if seen:  # an object may leave out what is null, but not all objects
        _check_columns(file, seen, wanted)


def _parquet(
    file: epath.Path, wanted: Sequence[str], groups: list[int] | None = None, before: int = 0
) -> Iterator[Record]:
    """The rows of these row groups, all where None; `before` is how many the file has before."""
    try:
        with file.open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            _check_columns(file, parquet.schema_arrow.names, wanted)
            number = itertools.count(before + 1)
            for batch in parquet.iter_batches(
                batch_size=8192, columns=list(dict.fromkeys(wanted)), row_groups=groups
            ):
                for row in _with_bytes(batch).to_pylist():
                    cells = {name: _text(value) for name, value in row.items()}
                    if any(text and is_broken(text) for text in cells.values()):
                        text = shown(json.dumps(cells, ensure_ascii=False))
                        yield Record(next(number), {}, "not_utf8", text)
                    else:
                        yield Record(next(number), cells)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_parquet(file, error) from None


def _no_parquet(file: epath.Path, error: Exception) -> UserError:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"table: {file} cannot be read as Parquet ({first_line}): write it, or copy it, again"
    )


def _with_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its strings as bytes: writers need not check that they are UTF-8."""
    for at, name in enumerate(batch.schema.names):
        column = batch.column(at)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type):
            column = column.cast(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        batch = batch.set_column(at, name, column)
    return batch


def _text(value: Any) -> str | None:
    """A value of JSON or Parquet as a cell's text, bytes as in `delimited.lines`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return json.dumps(value, ensure_ascii=False, default=str)


def _row(cells: Cells, mapped: Mapping[str, str], further: Mapping[str, str], number: int) -> Cells:
    row: Cells = {field: cells[name] or None for field, name in mapped.items()}
    row |= {name: cells[column] or None for name, column in further.items()}
    for name, text in row.items():
        if text and (name in ("label", "split", "truth") or name.startswith(RATER)):
            row[name] = text.strip() or None
    if not row.get("example_id"):
        row["example_id"] = str(number)
    if not row.get("query_id") and row["query"]:
        row["query_id"] = "q" + _hash(normalise_query(row["query"]))
    if not row.get("item_id") and row["title"]:
        row["item_id"] = "i" + _hash(row["title"])
    return row


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def scale_of(
    labels: Sequence[str], gains: Sequence[float] | None, counts: Counter[str], path: str
) -> LabelScale:
    """The scale that `read` gives a table at `path` in which the labels occur so often.

    `counts` matter where `labels` is empty.
    """
    names = tuple(labels)
    if not names:
        found = sorted(label for label in counts if label)
        names = tuple(str(grade) for grade in range(len(found)))
        if not 2 <= len(names) <= MOST_GRADES or set(found) != set(names):
            common = ", ".join(f"{label or '(none)'} ({n})" for label, n in counts.most_common(10))
            raise UserError(
                f"{path}: the labels are not the grades 0, 1, …; there are {common}: "
                "name the scale with --config.data.table.labels=LOWEST,…,HIGHEST"
            )
    if gains is None:
        gains = [grade / max(len(names) - 1, 1) for grade in range(len(names))]
    return LabelScale(names, tuple(gains))


def _on_scale(ratings: pa.ChunkedArray, scale: LabelScale, what: str) -> np.ndarray:
    """Whether each rating is null or on the scale; UserError where every one is off it."""
    inside = pc.is_in(ratings, pa.array(scale.names))
    empty = ratings.is_null()
    if not pc.any(inside).as_py() and not pc.all(empty).as_py():
        found = [value for value in ratings.unique().to_pylist() if value is not None][:10]
        raise UserError(
            f"{what} has {', '.join(found)}, none of which is on the scale "
            f"{', '.join(scale.names)}: leave it out of --config.data.table.raters, or write its "
            "ratings as the labels"
        )
    return pc.or_(inside, empty).to_numpy()
