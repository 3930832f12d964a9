"""What of the rows is written, in which order, and with which of the table's columns."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.outputs import of_table
from sie_jax.serving import results
from sie_jax.tables import writing

# queries by number, item ids, scores; the row of NaN has no title
QUERIES = [7, 7, 3, 7, 3, 7]
ITEMS = ["9", "10", "20", "8", "21", "22"]
SCORES = np.array([1.0, 2.0, 0.5, 2.0, 0.75, np.nan])
PRICES = [1.5, None, 3.0, 4.0, 5.0, 6.0]


def parts(folder: Path) -> list[Path]:
    """Two parts of three rows, as `scoring.described` leaves them with two columns of the table."""
    rows = [
        {
            "example_id": item,
            "query_id": str(query),
            "item_id": item,
            "query": "q",
            "title": None if np.isnan(score) else item,
            "made:run:query": query,
            "reason": "missing_title" if np.isnan(score) else None,
            "carried:price": None if price is None else str(price),
            "carried:score": "old",
        }
        for query, item, score, price in zip(QUERIES, ITEMS, SCORES, PRICES, strict=True)
    ]
    schema = pa.schema(
        [(name, pa.int64() if name == "made:run:query" else pa.string()) for name in rows[0]]
    )
    made = []
    for start in (0, 3):
        made.append(folder / f"part-{start}.parquet")
        pq.write_table(pa.Table.from_pylist(rows[start : start + 3], schema), made[-1])
    return made


CARRIED = {"price": pa.float64(), "score": pa.string()}


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", writing.SUFFIXES)
def test_every_row_is_in_one_of_two_files_with_all_of_its_columns(
    kind: str, tmp_path: Path
) -> None:
    outputs = of_table(tmp_path / f"scored{kind}")
    counts = results.write(parts(tmp_path), SCORES, None, CARRIED, outputs)
    assert counts == (5, {"missing_title": 1}, 5)
    scored = read(outputs.main)
    given = ["example_id", "query_id", "item_id", "query", "title"]
    assert list(scored[0]) == [*given, "score", "price", "given_score"]
    assert [row["item_id"] for row in scored] == ITEMS[:5]
    text = kind == ".csv"
    assert [row["score"] for row in scored] == (
        ["1", "2", "0.5", "2", "0.75"] if text else SCORES[:5].tolist()
    )
    assert [row["price"] for row in scored] == (["1.5", "", "3", "4", "5"] if text else PRICES[:5])
    assert {row["given_score"] for row in scored} == {"old"}
    (rejected,) = read(tmp_path / f"scored.rejected{kind}")
    assert (rejected["item_id"], rejected["reason"]) == ("22", "missing_title")
    assert float(str(rejected["price"])) == 6.0


def test_the_best_of_each_query(tmp_path: Path) -> None:
    """Queries in the order they begin; 8 before 10 among equals, by number; no score, no place."""
    made = parts(tmp_path)
    chosen = results.best(made, SCORES, 2)
    assert chosen.rows.tolist() == [3, 1, 4, 2]
    assert chosen.ranks.tolist() == [1, 2, 1, 2]
    ranked = results.best(made, np.where(np.isin(ITEMS, ["20", "21"]), np.nan, SCORES), 9)
    assert ranked.rows.tolist() == [3, 1, 0]
    assert ranked.ranks.tolist() == [1, 2, 3]


def test_the_best_are_written_in_their_order(tmp_path: Path) -> None:
    made = parts(tmp_path)
    outputs = of_table(tmp_path / "scored.jsonl")
    counts = results.write(made, SCORES, results.best(made, SCORES, 1), CARRIED, outputs)
    assert counts == (5, {"missing_title": 1}, 2)
    rows = [(row["item_id"], row["rank"], row["score"]) for row in read(outputs.main)]
    assert rows == [("8", 1, 2.0), ("21", 1, 0.75)]
