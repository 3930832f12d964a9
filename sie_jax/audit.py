"""The labels most worth re-checking, as files that are safe to open in a spreadsheet."""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sie_jax.data.spool import CHUNK_ROWS
from sie_jax.files import whole

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
    pairs: pa.Table,
    names: Sequence[str],
    probabilities: np.ndarray,
    *,
    scores: np.ndarray,
    hardness: np.ndarray,
) -> Iterator[dict[str, Any]]:
    """The pairs as rows of COLUMNS, the hardest first; equally hard ones in the order given.

    pairs: `[N]` rows with example_id, query_id, item_id, split, query, title and label, the place
    of the label in `names`. probabilities: `[N, K]`, a model's; best one that has not seen the
    pair. scores, hardness: `[N]`, what is written down and what is ranked by.

    `rank` counts over all pairs, `rank_in_query` over those of one query, both from 1.
    `prediction` is the most probable label. `corrected_label` is empty: whoever checks the label
    fills it in, and `apply` reads it.
    """
    order = np.argsort(-hardness, kind="stable")
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
                "label_probability": float(chunk[number, row["label"]]),
                "prediction_probability": float(chunk[number, best[number]]),
                "score": float(scores[place]),
                "corrected_label": "",
            }


def write(table: Path, lines: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows (with the keys of COLUMNS) as UTF-8 CSV and as JSON lines, each whole or not.

    In the CSV a text cell that a spreadsheet would run as a formula gets an apostrophe in front;
    the JSON lines hold the texts as they are.
    """
    with (
        whole(table) as temporary,
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
