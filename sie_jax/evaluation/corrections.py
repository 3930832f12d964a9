"""A new version of the data, with the labels that were corrected in an audit."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.data.schema import ATTRIBUTE, NUMERIC, RATER, REJECTED_SCHEMA
from sie_jax.data.sources import table as own_table
from sie_jax.errors import UserError
from sie_jax.evaluation.audit import check_arguments, rejected_file
from sie_jax.evaluation.spreadsheet import escape, unescape
from sie_jax.files import read_json, whole
from sie_jax.tables.spool import write_parquet

CELL = "cell:"  # in front of a table's own columns, beside the fields that they are mapped to


class Applied(NamedTuple):
    """How many rows were written, labels changed, and labels confirmed."""

    rows: int
    changed: int
    confirmed: int


class _Data(NamedTuple):
    """The data to correct: its columns, and its rows with CELL before each column."""

    names: Sequence[str]
    label: str
    example_id: str
    rows: Iterable[Mapping[str, Any]]


def apply(
    corrections: Path,
    pairs: str,
    output: Path,
    *,
    labels: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Applied:
    """Writes a new version of the data, in which the corrected labels replace the old ones.

    Every other cell, and the order, stay as they are. A table without a column of ids gets one,
    `example_id`. The changes are written beside the output, in <output>.changes.csv: example_id,
    query, title, label, corrected_label. Lines that cannot be read as rows go to
    <output>.rejected.parquet.

    Args:
      corrections: a CSV file with the columns `example_id` and `corrected_label`, such as an audit;
        rows where the latter is empty are ignored.
      pairs: the workdir of a run, whose pairs are written as a table for the source `table`; or a
        table, as for `audit.rank_table`.
      output: the CSV file to write.
      labels, columns: of a table, as for `audit.rank_table`; a workdir needs neither.

    Raises:
      UserError: the corrections lack a column, name an id that is not among the pairs or a label
        that is not on the scale, or correct one id to two labels; or as `audit.rank_table`.
        Nothing is written then.
    """
    run = Path(pairs) / "data" / "pairs.parquet"
    if of_run := run.is_file():
        labels = read_json(run.with_name("prepared.json"))["labels"]
    check_arguments(output, labels)
    data = _of_run(run, labels) if of_run else _of_table(pairs, columns or {})
    wanted = _read(corrections, labels)
    unreadable: list[Mapping[str, Any]] = []
    counts = Counter(dict.fromkeys(Applied._fields, 0))
    with (
        whole(output) as temporary,
        whole(output.with_suffix(".changes.csv")) as other,
        temporary.open("w", encoding="utf-8", newline="") as file,
        other.open("w", encoding="utf-8", newline="") as changes_file,
    ):
        writer, changes = csv.writer(file), csv.writer(changes_file)
        writer.writerow(data.names)
        changes.writerow(("example_id", "query", "title", "label", "corrected_label"))
        unknown = dict(wanted)
        for row in data.rows:
            if "reason" in row:
                unreadable.append(row)
                continue
            key = row["example_id"] or ""
            cells = {name: row.get(CELL + name) for name in data.names} | {data.example_id: key}
            unknown.pop(key, None)
            if (new := wanted.get(key)) is not None:
                old = (cells[data.label] or "").strip()
                counts["confirmed" if old == new else "changed"] += 1
                if old != new:
                    texts = (key, row["query"], row["title"], old, new)
                    changes.writerow([escape(text) for text in texts])
                cells[data.label] = new
            writer.writerow(["" if cell is None else cell for cell in cells.values()])
            counts["rows"] += 1
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UserError(
                f"{corrections}: no pair of {pairs} has the example_id "
                f"{', '.join(list(unknown)[:5])}{more}: give the data that was audited"
            )
    if unreadable:
        table = pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA)
        write_parquet(rejected_file(output), table)
    return Applied(**counts)


def _of_table(pairs: str, columns: Mapping[str, str]) -> _Data:
    names = own_table.column_names(pairs)
    example_id = columns.get("example_id") or "example_id"
    rows = own_table.rows(pairs, columns=columns, further={CELL + name: name for name in names})
    names = list(dict.fromkeys((example_id, *names)))
    return _Data(names, columns["label"], example_id, rows)


def _of_run(pairs: Path, labels: Sequence[str]) -> _Data:
    """A run's pairs, labels by name and attributes by their own names."""
    schema = pq.read_schema(pairs)
    plain = {
        name: name.removeprefix(ATTRIBUTE).removeprefix(RATER).removeprefix(NUMERIC)
        for name in schema.names
    }
    del plain["length"]  # in tokens, of this run
    # a column of the table may be an attribute and a feature: its texts are as they were
    texts = {one for name, one in plain.items() if not name.startswith(NUMERIC)}
    for name in [name for name in plain if name.startswith(NUMERIC) and plain[name] in texts]:
        del plain[name]

    def named(name: str, value: Any) -> str | None:
        if name in ("label", "truth") or name.startswith(RATER):
            return labels[value] if value >= 0 else None
        return value

    def rows() -> Iterator[Mapping[str, Any]]:
        for batch in pq.ParquetFile(pairs).iter_batches(columns=list(plain)):
            for row in batch.to_pylist():
                cells = {CELL + plain[name]: named(name, value) for name, value in row.items()}
                yield {**{name: row[name] for name in ("example_id", "query", "title")}, **cells}

    return _Data(list(plain.values()), "label", "example_id", rows())


def _read(path: Path, labels: Sequence[str]) -> dict[str, str]:
    """The corrected label by example id."""
    wanted: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for name in ("example_id", "corrected_label"):
                if name not in (reader.fieldnames or ()):
                    present = ", ".join(reader.fieldnames or ())
                    raise UserError(f"{path} has no column {name!r}; it has {present}")
            for row in reader:
                label = unescape(row["corrected_label"] or "").strip()
                key = unescape(row["example_id"])
                if not label:
                    continue
                place = f"{path}, line {reader.line_num}: example_id {key}"
                if label not in labels:
                    raise UserError(
                        f"{place} is corrected to {label!r}, which is not on the scale "
                        f"{', '.join(labels)}: give one of these, or nothing"
                    )
                if wanted.setdefault(key, label) != label:
                    raise UserError(
                        f"{place} is corrected to {wanted[key]} and to {label}: keep one"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return wanted
