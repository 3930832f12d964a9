"""The labels most worth re-checking, as files that are safe to open in a spreadsheet.

    python -m sie_jax.audit --pairs=FILE --labels=bad,good --output=audit.csv

ranks a table by somebody else's predictions, without training anything; with --apply=audit.csv it
writes the table anew with the labels that were corrected there.
"""

import argparse
import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.data import cleaning
from sie_jax.data.schema import ATTRIBUTE, RATER, REJECTED_SCHEMA
from sie_jax.data.sources import table as own_table
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole
from sie_jax.tables.spool import CHUNK_ROWS, write_parquet

COLUMNS = (
    "rank",
    "rank_in_query",
    "example_id",
    "query_id",
    "item_id",
    "split",
    "query",
    "title",
    "label",
    "prediction",
    "label_probability",
    "prediction_probability",
    "score",
    "corrected_label",
)
# the full-width forms count as formulas in spreadsheets set to Japanese or Chinese
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def ranked(
    pairs: pa.Table, names: Sequence[str], probabilities: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The pairs as rows of COLUMNS, the least credible label first; ties in the order given.

    The order is by p_y, the probability of the pair's own label y, ascending; `score` is 1 − p_y:
    near 1 where the model is sure that the label is wrong. That is the loss's order, and the
    self-confidence of confident learning (Northcutt et al. 2021, section 3.2, "CL baseline").
    Gradient norms are no substitute: on pairs that no model has seen the greatest norms are of
    pairs that the model is torn about (benchmarks/audit.py shows by how much they fall short).

    pairs: `[N]` rows with example_id, query_id, item_id, split, query, title and label, the place
    of the label in `names`. probabilities: `[N, K]`, a model's; best one that has not seen the
    pair.

    `rank` counts over all pairs, `rank_in_query` over those of one query, both from 1.
    `prediction` is the most probable label. `corrected_label` is empty: whoever checks the label
    fills it in, and `apply` reads it.
    """
    given = probabilities[np.arange(len(probabilities)), pairs["label"].to_numpy()]
    order = np.argsort(given, kind="stable")
    times: dict[str, int] = {}
    for start in range(0, len(order), CHUNK_ROWS):
        places = order[start : start + CHUNK_ROWS]
        chunk = probabilities[places]
        best = chunk.argmax(1)
        rows = pairs.take(pa.array(places)).to_pylist()
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            query = row["query_id"]
            times[query] = times.get(query, 0) + 1
            yield {
                **{name: row[name] for name in COLUMNS if name in row},
                "rank": start + number + 1,
                "rank_in_query": times[query],
                "label": names[row["label"]],
                "prediction": names[best[number]],
                "label_probability": float(given[place]),
                "prediction_probability": float(chunk[number, best[number]]),
                "score": 1 - float(given[place]),
                "corrected_label": "",
            }


def write(path: Path, lines: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows (with the keys of COLUMNS) as UTF-8 CSV and as JSON lines, each whole or not.

    In the CSV a text cell that a spreadsheet would run as a formula gets an apostrophe in front;
    the JSON lines hold the texts as they are.
    """
    with (
        whole(path) as temporary,
        whole(lines) as other,
        temporary.open("w", encoding="utf-8", newline="") as file,
        other.open("w", encoding="utf-8") as json_file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            row = {name: row[name] for name in COLUMNS}
            writer.writerow({name: _safe(value) for name, value in row.items()})
            json_file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path, *, most: int) -> list[dict[str, str]]:
    """The first `most` rows of a file that `write` left, as the texts they were."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = itertools.islice(csv.DictReader(file), most)
        return [{name: _unsafe(text) for name, text in row.items()} for row in rows]


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def _unsafe(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text


def apply(
    corrections: Path,
    pairs: str,
    output: Path,
    *,
    labels: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> tuple[int, int, int]:
    """Writes a new version of the data, in which the labels that were corrected are the new ones.

    Every other cell, and the order, stay as they are. A table without a column of ids gets one,
    `example_id`. What changed is written beside the output, <output>.changes.csv: example_id,
    query, title, label, corrected_label. Lines that are no row go to <output>.rejected.parquet.

    Args:
      corrections: a CSV file with the columns `example_id` and `corrected_label`, as an audit is;
        rows where the latter is empty are not looked at.
      pairs: the workdir of a run, whose pairs are written as a table for the source `table`; or a
        table, as for `of_table`.
      output: the CSV file to write.
      labels, columns: of a table, as for `of_table`; not needed for a workdir.

    Returns:
      How many rows were written, how many labels were changed, and how many were confirmed.

    Raises:
      UserError: the corrections lack a column, name an id that is not among the pairs or a label
        that is not on the scale, or correct one id twice to different labels; or as `of_table`.
        Nothing is written then.
    """
    if output.suffix != ".csv":
        raise UserError(f"--output={output}: give a file that ends in .csv")
    run = Path(pairs) / "data" / "pairs.parquet"
    if run.is_file():
        labels = read_json(run.with_name("prepared.json"))["labels"]
        names, rows = _rows_of_run(run, labels)
        label, example_id = "label", "example_id"
    else:
        if not labels:
            raise UserError("--labels is empty: name them, lowest grade first")
        mapped = dict(columns or {})
        names = own_table.column_names(pairs)
        label, example_id = mapped["label"], mapped.get("example_id") or "example_id"
        rows = own_table.rows(pairs, columns=mapped, further={_CELL + name: name for name in names})
        names = list(dict.fromkeys((example_id, *names)))
    wanted = _corrections(corrections, labels)
    found: set[str] = set()
    unreadable: list[dict[str, Any]] = []
    counts = Counter({"rows": 0, "changed": 0, "confirmed": 0})
    with (
        whole(output) as temporary,
        whole(output.with_suffix(".changes.csv")) as other,
        temporary.open("w", encoding="utf-8", newline="") as file,
        other.open("w", encoding="utf-8", newline="") as changes_file,
    ):
        writer, changes = csv.writer(file), csv.writer(changes_file)
        writer.writerow(names)
        changes.writerow(("example_id", "query", "title", "label", "corrected_label"))
        for row in rows:
            if "reason" in row:
                unreadable.append(row)
                continue
            cells = {name: row.get(_CELL + name) for name in names}
            key = row["example_id"] or ""
            cells[example_id] = key
            if (new := wanted.get(key)) is not None:
                found.add(key)
                old = (cells[label] or "").strip()
                counts["confirmed" if old == new else "changed"] += 1
                if old != new:
                    texts = (key, row["query"], row["title"], old, new)
                    changes.writerow([_safe(text) for text in texts])
                cells[label] = new
            writer.writerow(["" if cell is None else cell for cell in cells.values()])
            counts["rows"] += 1
        unknown = [key for key in wanted if key not in found]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UserError(
                f"{corrections}: no pair of {pairs} has the example_id "
                f"{', '.join(unknown[:5])}{more}: give the data that was audited"
            )
    if unreadable:
        table = pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA)
        write_parquet(_rejected_file(output), table)
    return counts["rows"], counts["changed"], counts["confirmed"]


_CELL = "cell:"  # in front of a table's own columns, beside the fields they are mapped to


def _rows_of_run(
    pairs: Path, labels: Sequence[str]
) -> tuple[list[str], Iterator[dict[str, str | None]]]:
    """The columns and rows of a run's pairs, labels by name and attributes by their own names."""
    schema = pq.read_schema(pairs)
    plain = {name: name.removeprefix(ATTRIBUTE).removeprefix(RATER) for name in schema.names}
    del plain["length"]  # in tokens, of this run

    def named(name: str, value: Any) -> str | None:
        if name in ("label", "truth") or name.startswith(RATER):
            return labels[value] if value >= 0 else None
        return value

    def rows() -> Iterator[dict[str, str | None]]:
        for batch in pq.ParquetFile(pairs).iter_batches(columns=list(plain)):
            for row in batch.to_pylist():
                cells = {_CELL + plain[name]: named(name, value) for name, value in row.items()}
                yield {**{name: row[name] for name in ("example_id", "query", "title")}, **cells}

    return list(plain.values()), rows()


def _corrections(path: Path, labels: Sequence[str]) -> dict[str, str]:
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
                label = _unsafe(row["corrected_label"] or "").strip()
                key = _unsafe(row["example_id"])
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


_COLUMNS = {"query": "query", "title": "title", "label": "label"} | dict.fromkeys(
    ("example_id", "query_id", "item_id", "split"), ""
)
_DESCRIPTION = (
    "Ranks the labels of a table that are most worth checking by the predictions beside them: a "
    "column probability_LABEL for each label. With --apply, writes the table with corrected labels."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 after one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m sie_jax.audit", description=_DESCRIPTION)
    parser.add_argument("--pairs", required=True, help="the table: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--apply", type=Path, metavar="CSV", help="an audit with corrected labels")
    parser.add_argument("--output", required=True, type=Path, help="the .csv file to write")
    parser.add_argument("--labels", default="", help="lowest grade first: bad,fair,good")
    for field, column in _COLUMNS.items():
        parser.add_argument(f"--{field}", default=column, metavar="COLUMN", help="its column")
    options = vars(parser.parse_args(arguments))
    labels = [name.strip() for name in options["labels"].split(",") if name.strip()]
    columns = {field: options[field] for field in _COLUMNS}
    try:
        if options["apply"]:
            rows, changed, confirmed = apply(
                options["apply"],
                options["pairs"],
                options["output"],
                labels=labels,
                columns=columns,
            )
            print(f"{rows} pairs in {options['output']}")
            print(f"{changed} labels changed, {confirmed} confirmed")
            return 0
        count, rejected = of_table(
            options["pairs"], options["output"], labels=labels, columns=columns
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} pairs ranked in {options['output']}")
    for reason, rows in rejected.items():
        print(f"{rows} rows left out, {reason}: see {_rejected_file(options['output'])}")
    return 0


def of_table(
    pairs: str, output: Path, *, labels: Sequence[str], columns: Mapping[str, str]
) -> tuple[int, dict[str, int]]:
    """Ranks a table's labels by the probabilities that stand beside them.

    The order and the score are those of `ranked`. The predictions should be of a model that has not
    seen the pairs: one that has agrees with the labels it learned.

    Args:
      pairs: a table as `data.sources.table.read` takes it, with a column "probability_<label>" for
        every label: numbers in [0, 1] with a sum of 1 to 1e-3.
      output: the CSV file; JSON lines, and the rows left out, are written beside it.
      labels: the scale, lowest first.
      columns: field → column, as for `data.sources.table.read`.

    Returns:
      How many pairs are ranked, and how many rows were left out for each reason.

    Raises:
      UserError: as `data.sources.table.read`; a probability is missing or none; the output does not
        end in .csv.
    """
    if output.suffix != ".csv":
        raise UserError(f"--output={output}: give a file that ends in .csv")
    if not labels:
        raise UserError("--labels is empty: name them, lowest grade first")
    probability = [f"probability_{name}" for name in labels]
    source = own_table.read(pairs, columns=columns, attributes=probability, labels=labels)
    cleaned = cleaning.clean(
        source.table, source.scale, max_query_characters=10**6, max_title_characters=10**6
    )
    kept = cleaned.kept
    values = np.stack([_numbers(kept[ATTRIBUTE + name], pairs, name) for name in probability], 1)
    off = np.flatnonzero(~(np.abs(values.sum(1) - 1) <= 1e-3) | (values < 0).any(1))
    if len(off):
        row = kept["example_id"][off[0]].as_py()
        raise UserError(
            f"{pairs}: the probabilities of row {row} are {values[off[0]].tolist()}: give numbers "
            "from 0 to 1 with a sum of 1"
        )
    write(output, output.with_suffix(".jsonl"), ranked(kept, labels, values))
    rejected = pa.concat_tables([source.unreadable, cleaned.rejected], promote_options="default")
    if rejected.num_rows:
        write_parquet(_rejected_file(output), rejected)
    return kept.num_rows, dict(Counter(rejected["reason"].to_pylist()))


def _numbers(cells: pa.ChunkedArray, pairs: str, name: str) -> np.ndarray:
    try:
        return cells.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise UserError(f"{pairs}: the column {name} is not of numbers: {error}") from None


def _rejected_file(output: Path) -> Path:
    return output.with_suffix(".rejected.parquet")


if __name__ == "__main__":
    sys.exit(main())
