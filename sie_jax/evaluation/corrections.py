"""A new version of the data, with the labels that were corrected in an audit."""

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from sie_jax.data.readers import delimited, files, parquet, vectors
from sie_jax.data.readers.records import Wanted
from sie_jax.data.repairs import repair
from sie_jax.data.schema import (
    ATTRIBUTE,
    CLEAN_SCHEMA,
    NUMERIC,
    RATER,
    REJECTED_SCHEMA,
    normalise_query,
)
from sie_jax.data.sources import table as own_table
from sie_jax.errors import UserError
from sie_jax.evaluation.audit import CONFLICT
from sie_jax.evaluation.audit_table import TableOfPairs, check_output, rejected_file
from sie_jax.evaluation.spreadsheet import escape, unescape
from sie_jax.files import read_json
from sie_jax.outputs import Outputs

CELL = "cell:"  # in front of a table's own columns, beside the fields that they are mapped to
TEXTS = ("query", "title")
BOOLEANS = ("false", "true")
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
REMAKE = "the command that made the run writes it again"


class Applied(NamedTuple):
    """How many rows were written, labels changed and confirmed, and rows left out, by reason."""

    rows: int
    changed: int
    confirmed: int
    rejected: dict[str, int]


class _Data(NamedTuple):
    """The data to correct: its columns, and its rows with CELL before each column.

    example_id: the column of ids; empty where the rows' numbers are the ids, and the table has a
      column of this name that is something else.
    rows: gives all of them whenever it is called.
    """

    names: Sequence[str]
    label: str
    example_id: str
    rows: Callable[[], Iterator[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class _Correction:
    """One line of the corrections.

    raw: the id as it stands there, of which a spreadsheet may have been kept from making a formula.
    texts: the query and the title beside it, None where these columns are not there.
    """

    place: str
    raw: str
    label: str
    texts: tuple[str, ...] | None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that may be meant, as an audit writes them first, and 17 where it is 17.0."""
        whole = self.raw.strip().removesuffix(".0") if _WHOLE.fullmatch(self.raw.strip()) else ""
        return tuple(dict.fromkeys((unescape(self.raw), self.raw, *([whole] if whole else []))))


def apply(
    corrections: Path,
    pairs: str,
    output: Path,
    *,
    labels: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Applied:
    """Writes a new version of the data, in which the corrected labels replace the old ones.

    Every other cell, and the order, stay as they are: what a spreadsheet would run as a formula
    too. A table without a column of ids gets one, `example_id`. The changes are written beside the
    output, in <output>.changes.csv: example_id, query, title, label, corrected_label. Lines that
    cannot be read as rows go to <output>.rejected.parquet.

    Args:
      corrections: a CSV file with the columns `example_id` and `corrected_label`, such as an audit
        or what its page saves; rows where the latter is empty are ignored. Fields may be separated
        by commas or semicolons, and 3.0 is the label 3. Where it has the columns of TEXTS
        too, these have to be those of the pair, so that corrections of other data are noticed.
      pairs: the workdir of a run, whose pairs, and behind them the rows with conflicting labels
        that it left out, are written as a table for the source `table`; or a table, as for
        `audit_table.TableOfPairs`.
      output: the CSV file to write.
      labels, columns: of a table, as for `audit_table.TableOfPairs`; a workdir needs neither.

    Raises:
      UserError: the corrections lack a column, have a line that cannot be read, name an id that is
        not among the pairs, that several pairs have or that could be two, or a label that is not on
        the scale, correct one id to two labels, or are of other texts; the output may not be
        written (`outputs.Outputs`); or as `audit_table.TableOfPairs.scale`. Nothing is written
        then.
    """
    run = Path(pairs) / "data" / "pairs.parquet"
    of_run = run.is_file()
    check_output(output)
    if not corrections.exists():
        raise UserError(
            f"--apply={corrections}: there is no such file: what the page of an audit saves is in "
            "the browser's folder for downloads, so move it here or give its path"
        )
    outputs = Outputs(output, (output.with_suffix(".changes.csv"), rejected_file(output)))
    outputs.check([corrections, run.parent if of_run else pairs])
    if of_run:
        labels = _labels(run.with_name("prepared.json"))
        data = _of_run(run, labels)
    else:
        table = TableOfPairs(path=pairs, columns=columns or {}, labels=labels)
        labels = table.scale()
        data = _of_table(pairs, table.fields())
    corrected = _read(corrections, labels)
    if not corrected:
        raise UserError(
            f"{corrections}: no corrected_label is filled in, so there is nothing to apply: write "
            "the right labels into that column, or apply what the page of the audit saved"
        )
    wanted = _resolved(corrected, data, corrections, pairs)
    unreadable: list[Mapping[str, Any]] = []
    counts = Counter(dict.fromkeys(("rows", "changed", "confirmed"), 0))
    with outputs.whole() as (temporary, other, left_out):
        with (
            temporary.open("w", encoding="utf-8", newline="") as file,
            other.open("w", encoding="utf-8", newline="") as changes_file,
        ):
            writer, changes = csv.writer(file), csv.writer(changes_file)
            writer.writerow(data.names)
            changes.writerow(("example_id", *TEXTS, "label", "corrected_label"))
            for row in data.rows():
                if "reason" in row:
                    unreadable.append(row)
                    continue
                key = row["example_id"] or ""
                cells = {name: row.get(CELL + name) for name in data.names}
                if data.example_id:
                    cells[data.example_id] = key
                if (correction := wanted.get(key)) is not None:
                    _check_texts(correction, row, pairs)
                    old, new = (cells[data.label] or "").strip(), correction.label
                    old = label_of(old, labels) or old
                    counts["confirmed" if old == new else "changed"] += 1
                    if old != new:
                        texts = (key, *(row[name] for name in TEXTS), old, new)
                        changes.writerow([escape(text) for text in texts])
                    cells[data.label] = new
                writer.writerow(["" if cell is None else cell for cell in cells.values()])
                counts["rows"] += 1
        if unreadable:
            table = pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA)
            pq.write_table(table, left_out)
    return Applied(**counts, rejected=dict(Counter(row["reason"] for row in unreadable)))


def _labels(prepared: Path) -> Sequence[str]:
    try:
        labels: list[str] = read_json(prepared)["labels"]
        if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
            raise ValueError("its labels are no list of texts")
        return labels
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{prepared} cannot be read ({error}): {REMAKE}") from None


def _of_table(pairs: str, columns: Mapping[str, str]) -> _Data:
    names = own_table.column_names(pairs)
    example_id = columns.get("example_id") or ("" if "example_id" in names else "example_id")
    added = [example_id] if example_id not in ("", *names) else []
    further = {CELL + name: name for name in names}

    def rows() -> Iterator[Mapping[str, Any]]:
        return own_table.rows(
            pairs, columns=columns, further=further, fix="give the table that was audited"
        )

    return _Data([*added, *names], columns["label"], example_id, rows)


def _of_run(pairs: Path, labels: Sequence[str]) -> _Data:
    """A run's pairs, and its conflicts, with labels by name and attributes by their own names."""
    file = epath.Path(pairs)
    conflicts = _conflicts(pairs)
    with parquet.opened(file, Wanted((*CLEAN_SCHEMA.names, "length"), REMAKE)) as opened:
        schema = opened.schema_arrow
    for field in schema:
        graded = _is_graded(field.name)
        right = pa.types.is_integer(field.type) if graded else parquet.is_text(field.type)
        if not right and (graded or field.name in CLEAN_SCHEMA.names):
            raise UserError(f"{pairs} holds {field.type} as {field.name}: {REMAKE}")
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
        if not _is_graded(name):
            return value
        if value is None or not -1 <= value < len(labels):
            raise UserError(f"{pairs} has a {name} {value}, which is no grade: {REMAKE}")
        return labels[value] if value >= 0 else None

    def rows() -> Iterator[Mapping[str, Any]]:
        with parquet.opened(file, Wanted(("example_id", *TEXTS), "restore it")) as opened:
            for batch in opened.iter_batches(columns=list(plain)):
                for row in batch.to_pylist():
                    cells = {CELL + plain[name]: named(name, value) for name, value in row.items()}
                    yield {**{name: row[name] for name in ("example_id", *TEXTS)}, **cells}
        for row in conflicts:
            cells = {CELL + plain[name]: row.get(name) for name in plain}
            yield {**{name: row[name] for name in ("example_id", *TEXTS)}, **cells}

    return _with_vectors(_Data(list(plain.values()), "label", "example_id", rows))


def _with_vectors(data: _Data) -> _Data:
    """The same with one column for a vector, as it was read, and not one for each number."""
    elements: dict[str, list[str]] = {}
    for name in data.names:
        if vectors.element(name):
            elements.setdefault(vectors.column(name), []).append(name)

    def rows() -> Iterator[Mapping[str, Any]]:
        for row in data.rows():
            numbers = {one: [row[CELL + name] for name in of] for one, of in elements.items()}
            yield {**row, **{CELL + one: vectors.text(of) for one, of in numbers.items()}}

    names = dict.fromkeys(map(vectors.column, data.names))
    return data._replace(names=list(names), rows=rows) if elements else data


def _conflicts(pairs: Path) -> list[dict[str, Any]]:
    """The rows with conflicting labels that a run left out, each with the split of its query."""
    file = pairs.parents[1] / "rejected.parquet"
    if not file.is_file():
        return []
    try:
        rows = pq.read_table(file, filters=[("reason", "=", CONFLICT)]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read ({files.first_line(error)}): {REMAKE}") from None
    splits = dict.fromkeys((normalise_query(row["query"] or "") for row in rows), "")
    with parquet.opened(epath.Path(pairs), Wanted(("query", "split"), REMAKE)) as opened:
        for batch in opened.iter_batches(columns=["query", "split"]) if rows else ():
            for row in batch.to_pylist():
                if (query := normalise_query(row["query"])) in splits:
                    splits[query] = row["split"]
    for row in rows:
        row["split"] = splits[normalise_query(row["query"] or "")] or row["split"]
    return rows


def _is_graded(name: str) -> bool:
    """Whether a column of a run's pairs holds places on the scale."""
    return name in ("label", "truth") or name.startswith(RATER)


def _read(path: Path, labels: Sequence[str]) -> list[_Correction]:
    """The lines that correct a label."""
    found: list[_Correction] = []
    header, records = delimited.read(epath.Path(path), delimiter=",")
    fix = "give an audit, with its header, saved as CSV"
    Wanted(("example_id", "corrected_label"), fix).check(epath.Path(path), header)
    for record in records:
        place = f"{path}, line {record.line}"
        if record.reason:
            raise UserError(f"{place} cannot be read ({record.reason}): write the line again")
        cells = {name: text or "" for name, text in record.cells.items()}
        text = unescape(cells["corrected_label"]).strip()
        if not text:
            continue
        label = label_of(text, labels)
        texts = tuple(unescape(cells[name]) for name in TEXTS if name in cells)
        raw = cells["example_id"]
        place = f"{place}: example_id {unescape(raw)}"
        if label is None:
            raise UserError(
                f"{place} is corrected to {text!r}, which is not on the scale "
                f"{', '.join(labels)}: give one of these, or nothing"
            )
        found.append(_Correction(place, raw, label, texts if len(texts) == len(TEXTS) else None))
    return found


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """The label that a cell means; None where it is none.

    Spreadsheets write the label 3 as 3.0 or 3,0, and true as TRUE.
    """
    if text in labels:
        return text
    same = [
        one for one in labels if one.casefold() == text.casefold() and one.casefold() in BOOLEANS
    ]
    try:
        value = float(text.replace(",", "."))
        same += [one for one in labels if _WHOLE.fullmatch(one) and float(one) == value]
    except ValueError:
        pass
    return same[0] if len(same) == 1 else None


def _resolved(
    corrections: Sequence[_Correction], data: _Data, file: Path, pairs: str
) -> dict[str, _Correction]:
    """The corrections by the id of the one pair that each is of."""
    named = {key for correction in corrections for key in correction.ids}
    times = Counter(key for row in data.rows() if (key := row["example_id"] or "") in named)
    found: dict[str, _Correction] = {}
    unknown: dict[str, None] = {}
    for correction in corrections:
        ids = [key for key in correction.ids if times[key]]
        if not ids:
            unknown[correction.ids[0]] = None
            continue
        key = ids[0]
        if len(ids) > 1 and correction.texts is None:
            raise UserError(
                f"{correction.place} could be the pair {ids[0]} or the pair {ids[1]}: add the "
                "columns query and title, as an audit has them"
            )
        if times[key] > 1:
            raise UserError(
                f"{correction.place} is that of {times[key]} pairs of {pairs}: give each pair an "
                "example_id of its own"
            )
        if found.setdefault(key, correction).label != correction.label:
            raise UserError(
                f"{correction.place} is corrected to {found[key].label} and to "
                f"{correction.label}: keep one"
            )
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(
            f"{file}: no pair of {pairs} has the example_id {', '.join(list(unknown)[:5])}{more}: "
            "give the data that was audited"
        )
    return found


def _check_texts(correction: _Correction, row: Mapping[str, Any], pairs: str) -> None:
    """Raises UserError where the pair is another than the one whose label was checked."""
    texts = tuple(repair(row[name] or "")[0] for name in TEXTS)
    if correction.texts is not None and texts != tuple(
        repair(text)[0] for text in correction.texts
    ):
        raise UserError(
            f"{correction.place} has another query or title than the pair of {pairs}: give the "
            "data that was audited, or leave these two columns out to go by the id alone"
        )
