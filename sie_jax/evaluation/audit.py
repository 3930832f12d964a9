"""The labels most worth checking, ranked by a model's predictions and listed for a spreadsheet."""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax.data import cleaning
from sie_jax.data.readers.records import printable
from sie_jax.data.schema import NUMERIC, check_labels
from sie_jax.data.sources import table as own_table
from sie_jax.errors import UserError
from sie_jax.evaluation.spreadsheet import escape, unescape
from sie_jax.files import whole
from sie_jax.outputs import Outputs
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


class Counts(NamedTuple):
    """How many pairs were ranked, and how many rows were left out, by reason."""

    ranked: int
    rejected: dict[str, int]


def ranked(
    pairs: pa.Table, names: Sequence[str], probabilities: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The pairs as rows of COLUMNS, the least credible label first; ties keep the order given.

    The order is by p_y, the probability of the pair's own label y, ascending; `score` is 1 − p_y:
    near 1 where the model is sure that the label is wrong. That is the order of the loss, and the
    self-confidence of confident learning (Northcutt et al. 2021, section 3.2, "CL baseline").
    Gradient norms are no substitute: among pairs that no model has seen, those with the greatest
    norms are the ones between whose labels the model wavers (benchmarks/audit.py measures this).

    `rank` counts over all pairs, `rank_in_query` over those of one query, both from 1.
    `prediction` is the most probable label. `corrected_label` is empty: whoever checks the label
    fills it in, and `corrections.apply` reads it.

    Args:
      pairs: `[N]` rows with example_id, query_id, item_id, split, query, title and label, which is
        an index into `names`.
      names: the labels.
      probabilities: `[N, K]`, preferably of a model that has not seen the pair.
    """
    given = probabilities[np.arange(len(probabilities)), pairs["label"].to_numpy()]
    order = np.argsort(given, kind="stable")
    times: Counter[str] = Counter()
    for start in range(0, len(order), CHUNK_ROWS):
        places = order[start : start + CHUNK_ROWS]
        chunk = probabilities[places]
        best = chunk.argmax(1)
        rows = pairs.take(pa.array(places)).to_pylist()
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            times[row["query_id"]] += 1
            yield {
                **{name: row[name] for name in COLUMNS if name in row},
                "rank": start + number + 1,
                "rank_in_query": times[row["query_id"]],
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
            writer.writerow({name: escape(value) for name, value in row.items()})
            json_file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path, *, most: int) -> list[dict[str, str]]:
    """The first `most` rows of a CSV file that `write` left, with the texts that it was given."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = itertools.islice(csv.DictReader(file), most)
        return [{name: unescape(text) for name, text in row.items()} for row in rows]


def rank_table(
    pairs: str, output: Path, *, labels: Sequence[str], columns: Mapping[str, str]
) -> Counts:
    """Ranks a table's labels by the predictions in its own columns, and writes them.

    The order and the score are those of `ranked`. The predictions should be of a model that has not
    seen the pairs: one that has agrees with the labels that it learned.

    Args:
      pairs: a table as `data.sources.table.read` takes it, with a column "probability_<label>" for
        every label: numbers in [0, 1] with a sum of 1 to 1e-3.
      output: the CSV file; the JSON lines, and the rows that are left out, are written beside it.
      labels: the scale, lowest grade first.
      columns: field → column, as for `data.sources.table.read`.

    Raises:
      UserError: as `data.sources.table.read`; a probability is missing or impossible; the output
        does not end in .csv, or may not be written (`outputs.Outputs`).
    """
    check_arguments(output, labels)
    outputs = Outputs(output, (output.with_suffix(".jsonl"), rejected_file(output)))
    outputs.check([pairs])
    probability = [f"probability_{name}" for name in labels]
    source = own_table.read(pairs, columns=columns, features=probability, labels=labels)
    cleaned = cleaning.clean(
        source.table, source.scale, max_query_characters=10**6, max_title_characters=10**6
    )
    kept = cleaned.kept
    values = np.stack([kept[NUMERIC + name].to_numpy() for name in probability], 1)
    inside = np.clip(values, 0, 1)
    off = np.flatnonzero((values != inside).any(1) | ~(np.abs(inside.sum(1) - 1) <= 1e-3))
    if len(off):
        row = printable(kept["example_id"][off[0]].as_py())
        raise UserError(
            f"{pairs}: the probabilities of row {row} are {values[off[0]].tolist()}: give numbers "
            "from 0 to 1 with a sum of 1"
        )
    rejected = pa.concat_tables([source.unreadable, cleaned.rejected], promote_options="default")
    with outputs.whole() as (table, lines, left_out):
        write(table, lines, ranked(kept, labels, values))
        if rejected.num_rows:
            write_parquet(left_out, rejected)
    return Counts(kept.num_rows, dict(Counter(rejected["reason"].to_pylist())))


def check_arguments(output: Path, labels: Sequence[str]) -> None:
    """Raises UserError if the output is not a CSV file, or there are no labels."""
    if output.suffix != ".csv":
        raise UserError(f"--output={output}: give a file that ends in .csv")
    if not labels:
        raise UserError("--labels is empty: name them, lowest grade first")
    check_labels("--labels", labels)


def rejected_file(output: Path) -> Path:
    """Where the rows that were left out are."""
    return output.with_suffix(".rejected.parquet")
