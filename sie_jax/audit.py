"""The labels most worth re-checking, as files that are safe to open in a spreadsheet.

    python -m sie_jax.audit --pairs=FILE --output=audit.csv

ranks a table by somebody else's predictions, without training anything.
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

from sie_jax.data import cleaning
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.data.sources import table as own_table
from sie_jax.data.spool import CHUNK_ROWS
from sie_jax.errors import UserError
from sie_jax.files import whole, write_parquet

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


_COLUMNS = {"query": "query", "title": "title", "label": "label"} | dict.fromkeys(
    ("example_id", "query_id", "item_id", "split"), ""
)
_DESCRIPTION = (
    "Ranks the labels of a table that are most worth checking by the predictions beside them: a "
    "column probability_LABEL for each label."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 after one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m sie_jax.audit", description=_DESCRIPTION)
    parser.add_argument("--pairs", required=True, help="the table: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--output", required=True, type=Path, help="the .csv file to write")
    parser.add_argument("--labels", required=True, help="lowest grade first: bad,fair,good")
    for field, column in _COLUMNS.items():
        parser.add_argument(f"--{field}", default=column, metavar="COLUMN", help="its column")
    options = vars(parser.parse_args(arguments))
    labels = [name.strip() for name in options["labels"].split(",") if name.strip()]
    columns = {field: options[field] for field in _COLUMNS}
    try:
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
