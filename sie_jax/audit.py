"""The labels most worth re-checking, as a CSV file that is safe to open in a spreadsheet."""

import csv
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sie_jax.files import whole

COLUMNS = (
    "rank",
    "example_id",
    "query_id",
    "item_id",
    "query",
    "title",
    "label",
    "prediction",
    "score",
)
# the full-width forms count as formulas in spreadsheets set to Japanese or Chinese
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows (with the keys of COLUMNS) as UTF-8 CSV, whole or not at all.

    A text cell that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _safe(row[name]) for name in COLUMNS})


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
