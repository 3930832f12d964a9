"""A team's own table of judged pairs: CSV, TSV, JSON lines or Parquet, one file or a folder."""

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from sie_jax.data import readers, scales
from sie_jax.data.readers import files, parquet, vectors
from sie_jax.data.readers.parquet import RowGroup
from sie_jax.data.readers.records import (
    Cells,
    DecimalCommas,
    Record,
    Wanted,
    besides,
    not_rows,
    number,
    printable,
    rejected,
)
from sie_jax.data.scales import Numbers
from sie_jax.data.schema import (
    ATTRIBUTE,
    CURRENT,
    NUMERIC,
    RATER,
    RAW_COLUMNS,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    Source,
    check_labels,
    is_number,
    normalise_query,
)
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError
from sie_jax.tables.spool import filtered, spool_rows

NEEDED = ("query", "title", "label")
FIX_VECTORS = "name the columns with --config.data.vectors"
FIX = "name columns that are there"
_WHOLE = re.compile(r"^(\d+)\.0+$")


@dataclasses.dataclass(slots=True, kw_only=True)
class TableConfig(SourceSection):
    """What else a table's columns mean."""

    expects: ClassVar[str] = "a file or a folder of its parts"
    numbers: ClassVar[bool] = True
    own_labels: ClassVar[bool] = True

    labels: tuple[str, ...] = ()  # the scale, lowest grade first; empty: the labels are 0, 1, …
    attributes: tuple[str, ...] = ()  # features, and to see importance by: brand, category
    raters: tuple[str, ...] = ()  # columns with the labels of single people

    def check(self) -> None:
        """Raises UserError for labels that are no scale."""
        if self.labels:
            check_labels("data.table.labels", self.labels)

    def read(self, request: Request) -> Source:
        """The table at `request.path`."""
        columns = columns_of(request)
        if request.catalogue and columns["title"] not in column_names(request.path):
            columns["title"] = ""
        return read(
            request.path,
            columns=columns,
            attributes=self.attributes,
            raters=self.raters,
            features=features_of(request),
            labels=request.numbers or self.labels,
            flags={
                "--config.data.table.attributes": self.attributes,
                "--config.data.table.raters": self.raters,
                "--config.data.features": request.features,
            },
        )

    def further(self, request: Request) -> dict[str, str]:
        """A source's column → the table's, of attributes and features."""
        return further_of(self.attributes, features=features_of(request))

    def row_groups(self, request: Request) -> tuple[Source, list[RowGroup]] | None:
        """All of the table but its rows, and the row groups that hold them.

        None where the scale or the rows to reject show only in all rows together, and where the
        table is not in Parquet files.
        """
        if not self.labels or self.raters or request.columns.get("truth"):
            return None
        further = self.further(request)
        groups = row_groups(request.path, columns=columns_of(request), further=further)
        if groups is None:
            return None
        scale = scales.of_grades(self.labels, None, Counter(), request.path)
        return Source(RAW_SCHEMA.empty_table(), scale, request.path), groups


def columns_of(request: Request) -> dict[str, str]:
    """The table's columns by the fields of RAW_SCHEMA, and by CURRENT."""
    fields = (*RAW_COLUMNS, CURRENT)
    return {field: name for field, name in request.columns.items() if field in fields}


def features_of(request: Request) -> list[str]:
    """The names of the table's features: columns of numbers, and the elements of vectors.

    Raises UserError where a column of vectors is not there or has none.
    """
    if not request.vectors:
        return list(request.features)
    elements = vectors.names(files.find(request.path), request.vectors, FIX_VECTORS)
    return [*request.features, *elements]


def read(
    path: str,
    *,
    columns: Mapping[str, str],
    attributes: Sequence[str] = (),  # columns with texts, such as brand and category
    raters: Sequence[str] = (),  # columns with the labels of single people
    features: Sequence[str] = (),  # columns with numbers that are features, and image[0], …
    labels: Sequence[str] | Numbers = (),  # lowest grade first; empty: the labels are 0, 1, …
    gains: Sequence[float] | None = None,
    fix: str = FIX,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Source:
    """The rows of a table. They are streamed: memory does not grow with the file.

    Ids are derived where the table lacks them and where their cells are empty. `example_id` is the
    record's number over all parts; it counts from 0 and counts unreadable records too. `query_id`
    is "q" and 64 bits of the BLAKE2b hash of the query under `normalise_query`; `item_id` is "i"
    and those of the title.

    Args:
      path: a file that ends in one of `files.SUFFIXES`, or a folder of such files of one kind, as
        `readers.files.find` takes them. CSV and TSV files have a header and quotes as in RFC 4180.
        All text files are UTF-8. Blank lines are left out.
      columns: field of RAW_SCHEMA, or CURRENT → the table's column; NEEDED must be there, but where
        `item_id` is, `title` need not: `items.join` gives titles, or cleaning rejects the rows. An
        empty name means that the table has no such column.
      attributes, raters, features: further columns, kept as ATTRIBUTE, RATER and NUMERIC columns.
        The features image[0] to image[K − 1] are the numbers of a column `image` of vectors of K.
      labels: the scale, lowest grade first. Where it is empty, the labels found must be the
        integers 0 to K − 1 with none missing, 2 ≤ K ≤ `scales.MOST_GRADES`, or false and true.
        There the word NaN is a missing label. 2.0 is 2, of `truth` and of raters too, unless the
        scale has a label 2.0 or none that is 2. Where they are `Numbers`, the scale is of all that
        occur (`scales.of_numbers`), or of bins (`scales.binned`), which `summary` describes.
      gains: one for each label; where it is None, grade k gains k/(K − 1).
      fix, flags: as for `rows`.

    Returns:
      Source. Cells are texts. A number of JSON or Parquet is written out, a whole one without a
        point. White space around a label, a rating and a split is cut. An empty cell is null, and
        so is NaN in JSON or Parquet. CURRENT and NUMERIC columns are float64, by `records.number`,
        whatever the kind of file.
        `unreadable` has the records that are not rows, with the reason `unparsable_line`,
      `wrong_field_count` or `not_utf8`; and the rows with a rating outside the scale, with the
      reason `rater_outside_scale`.

    Raises:
      UserError: the path, a column or the scale is wrong, raters or true labels are never on it, a
        cell of a CURRENT or NUMERIC column is not a number (or vector), a column has decimal points
        and decimal commas, or a file cannot be read as a whole.
    """
    further = further_of(attributes, raters, features)
    # a catalogue can tell the titles of items that have ids
    lacking = [one for one in NEEDED if not columns.get(one)]
    if empty := [
        f"data.columns.{one}" for one in lacking if one != "title" or not columns.get("item_id")
    ]:
        raise UserError(
            f"{' and '.join(empty)} {'are' if len(empty) > 1 else 'is'} empty: name the column "
            "that holds it"
        )
    unreadable: list[Cells] = []
    counts: Counter[str] = Counter()

    def readable() -> Iterator[Cells]:
        for row in rows(path, columns=columns, further=further, fix=fix, flags=flags):
            if "reason" in row:
                unreadable.append(row)
            else:
                if isinstance(labels, Numbers):
                    row["label"] = scales.as_number(row["label"])
                else:
                    row |= {name: _grade(row[name], labels) for name in row if _is_label(name)}
                counts[row["label"] or ""] += 1
                yield row

    table = spool_rows(readable(), schema_of(columns, further))
    if not table.num_rows:
        raise UserError(
            f"{path} has {len(unreadable)} lines and no row {not_rows(unreadable)}"
            if unreadable
            else f"{path} has no rows: give a table with a header and rows"
        )
    summary: dict[str, Any] = {}
    try:
        if not isinstance(labels, Numbers):
            scale = scales.of_grades(labels, gains, counts, path)
        elif labels.bins:
            table, scale, summary["bins"] = scales.binned(table, counts, labels.bins, path)
        else:
            scale = scales.of_numbers(counts, path)
    except UserError as error:
        raise UserError(besides(str(error), unreadable)) from None
    left_out = pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA)
    inside = np.ones(table.num_rows, bool)
    for name in raters:
        inside &= _on_scale(
            table[RATER + name], scale, f"{path}: the rater column {name}", "data.table.raters"
        )
    if columns.get("truth"):
        named = f"{path}: the column {columns['truth']} of true labels"
        _on_scale(table["truth"], scale, named, "data.columns.truth")
    if not inside.all():
        outside = table.filter(pa.array(~inside))
        reason = pa.array(["rater_outside_scale"] * outside.num_rows, pa.string())
        left_out = pa.concat_tables(
            [left_out, outside.append_column("reason", reason)], promote_options="default"
        )
        table = filtered(table, pa.array(inside))
    return Source(table=table, scale=scale, location=path, unreadable=left_out, summary=summary)


def rows(
    path: str,
    *,
    columns: Mapping[str, str],
    further: Mapping[str, str] | None = None,
    fix: str = FIX,
    flags: Mapping[str, Sequence[str]] | None = None,
    query: str = "",
) -> Iterator[dict[str, Any]]:
    """Every record of a table in order, as cells by field, with ids derived as in `read`.

    A cell is a text or None; of a CURRENT or NUMERIC column, a float or None.

    A record that is not a row has `example_id` "<file>:<line>", its `text` and a `reason`, as in
    `read`; a row has no `reason`.

    Args:
      path: as for `read`.
      columns: field of RAW_SCHEMA, or CURRENT → the table's column, `query` and `title` among them.
        An empty name means that the table has no such column.
      further: names of further cells → their columns.
      fix: what to do about a further column that is not there, for the message.
      flags: the further columns that each flag names.
      query: that of all rows, where the table holds items alone and has no column for it.

    Raises:
      UserError: as `read`, except about the scale.
    """
    fields = _fields(columns, further or {})
    wanted, numbers = _wanted(fields, fix, flags), itertools.count()
    for file in files.find(path):
        commas = DecimalCommas(file) if readers.decimal_comma(file) else None
        for record in readers.records(file, wanted):
            if commas:
                record = record._replace(cells=_pointed(commas, record, fields))
            yield _row(file, record, fields, next(numbers), query)


def row_groups(
    path: str, *, columns: Mapping[str, str], further: Mapping[str, str]
) -> list[RowGroup] | None:
    """The row groups of all parts of a table, in order; None where it is not in Parquet files.

    Raises:
      UserError: as `read`, about the path and the columns.
    """
    parts = files.find(path)
    if files.kind(parts[0]) != files.PARQUET:
        return None
    return parquet.row_groups(parts, _wanted(_fields(columns, further)))


def rows_of(
    place: RowGroup, *, columns: Mapping[str, str], further: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """What `rows` gives of one row group."""
    fields = _fields(columns, further)
    records = parquet.read(place.file, _wanted(fields), place)
    for place_of_row, record in enumerate(records, place.first):
        yield _row(place.file, record, fields, place_of_row)


def further_of(
    attributes: Sequence[str] = (), raters: Sequence[str] = (), features: Sequence[str] = ()
) -> dict[str, str]:
    """A source's column → the table's, of attributes, raters and features."""
    named = ((ATTRIBUTE, attributes), (RATER, raters))
    found = {prefix + name: name for prefix, names in named for name in names}
    return found | {NUMERIC + name: vectors.column(name) for name in features}


def schema_of(columns: Mapping[str, str], further: Mapping[str, str]) -> pa.Schema:
    """The columns that `read` gives: RAW_SCHEMA, the further ones, and CURRENT if it is named."""
    names = [*further, *([CURRENT] if columns.get(CURRENT) else [])]
    types = (pa.float64() if is_number(name) else pa.string() for name in names)
    return pa.schema([*RAW_SCHEMA, *map(pa.field, names, types)])


def column_names(path: str) -> list[str]:
    """The table's columns: those of its first file; of JSON lines every key of every file.

    Raises:
      UserError: as `read`, about the path and the header.
    """
    return readers.column_names(files.find(path))


def shared_types(path: str) -> tuple[dict[str, pa.DataType], list[str]]:
    """The columns that all files of a table have, and the names of those that some of them lack.

    Each column has the type to which its cells can be cast: a string's where files differ.

    Raises:
      UserError: as `read`, about the path and the header.
    """
    first, *others = [readers.types(file) for file in files.find(path)]
    lacking: dict[str, None] = {}
    for other in others:
        lacking |= dict.fromkeys(first.keys() ^ other.keys())
        first = {
            name: kind if other[name] == kind else pa.string()
            for name, kind in first.items()
            if name in other
        }
    return first, sorted(lacking)


def _fields(columns: Mapping[str, str], further: Mapping[str, str]) -> dict[str, str]:
    """The table's column of each cell that `rows` gives."""
    return {field: name for field, name in columns.items() if name} | dict(further)


def _wanted(
    fields: Mapping[str, str], fix: str = FIX, flags: Mapping[str, Sequence[str]] | None = None
) -> Wanted:
    flag = "--config.data.columns." if fix == FIX else "--"
    own = {flag + field: (column,) for field, column in fields.items() if ":" not in field}
    return Wanted(tuple(fields.values()), fix, flags=own | dict(flags or {}))


def _row(
    file: epath.Path, record: Record, fields: Mapping[str, str], place: int, query: str = ""
) -> dict[str, Any]:
    """The cells that `rows` gives of one record, which is at this place of the table."""
    if record.reason:
        return dict(rejected(file, record))
    row: dict[str, Any] = {field: record.cells[name] or None for field, name in fields.items()}
    elements = _elements(file, record, fields)
    if query:
        row["query"] = query
    for name, text in row.items():
        if text and (name == "split" or _is_label(name)):
            row[name] = text.strip() or None
        elif is_number(name) and name not in elements:
            row[name] = _number(file, record, fields[name])
    row |= elements
    if not row.get("example_id"):
        row["example_id"] = str(place)
    if not row.get("query_id") and row["query"]:
        row["query_id"] = "q" + _hash(normalise_query(row["query"]))
    if not row.get("item_id") and row.get("title"):
        row["item_id"] = "i" + _hash(row["title"])
    return row


def _elements(file: epath.Path, record: Record, fields: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of a record's vectors, by the fields that are called after their elements."""
    asked: dict[str, list[tuple[str, int]]] = {}
    for field, name in fields.items():
        found = vectors.element(field) if field.startswith(NUMERIC) else None
        if found:
            asked.setdefault(name, []).append((field, found[1]))
    numbers: dict[str, Any] = {}
    for name, several in asked.items():
        size = 1 + max(place for _, place in several)
        read = vectors.read(f"{file}, record {record.line}", name, record.cells[name], size)
        numbers |= {field: read[place] for field, place in several}
    return numbers


def _pointed(commas: DecimalCommas, record: Record, fields: Mapping[str, str]) -> Cells:
    """The cells of a record with decimal commas, labels and numbers with points."""
    columns = {name for field, name in fields.items() if _is_label(field) or is_number(field)}
    return record.cells | {
        name: commas.pointed(name, record.cells[name] or "", f"line {record.line}")
        for name in columns & record.cells.keys()
    }


def _is_label(name: str) -> bool:
    return name in ("label", "truth") or name.startswith(RATER)


def _grade(label: str | None, scale: Sequence[str]) -> str | None:
    """A label as a grade: many programs write 2.0 where a column has a missing label."""
    grade = _WHOLE.sub(r"\1", label or "")
    named = label in scale or (scale and grade not in scale)
    return label if named or not label else grade


def _number(file: epath.Path, record: Record, column: str) -> float | None:
    text = record.cells[column]
    try:
        return number(text)
    except ValueError:
        kind = "row" if files.kind(file) == files.PARQUET else "line"
        raise UserError(
            f"{file}, {kind} {record.line}: the column {column!r} holds {(text or '')[:80]!r}, "
            "which is not a finite number: correct it, or leave the cell empty if the number is "
            "missing"
        ) from None


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _on_scale(ratings: pa.ChunkedArray, scale: LabelScale, what: str, flag: str) -> np.ndarray:
    """Whether each rating is null or on the scale; raises UserError where none is on it.

    what: names the column. flag: the one that says that it holds ratings.
    """
    inside = pc.is_in(ratings, pa.array(scale.names))
    empty = ratings.is_null()
    if not pc.any(inside).as_py() and not pc.all(empty).as_py():
        found = [printable(value) for value in ratings.unique().to_pylist() if value][:10]
        raise UserError(
            f"{what} has {', '.join(found)}, none of which is on the scale "
            f"{', '.join(scale.names)}: leave it out of --config.{flag}, or write its "
            "values as the labels"
        )
    return pc.or_(inside, empty).to_numpy()
