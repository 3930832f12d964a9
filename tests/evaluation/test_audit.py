import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evaluation.audited import plain

from sie_jax.data.schema import RAW_SCHEMA
from sie_jax.evaluation import audit, spreadsheet


def listed(pairs: pa.Table, names: tuple[str, ...], probabilities: np.ndarray) -> list[Any]:
    judged = audit.Judged(pairs, names, probabilities, RAW_SCHEMA.empty_table())
    return list(audit.ranked(judged).rows())


def test_a_row_of_a_blindly_labelled_query_says_so() -> None:
    rng = np.random.default_rng(5)
    query = np.repeat(np.arange(60), 15)
    labels = rng.integers(2, size=900)
    p = np.where(np.arange(2) == labels[:, None], 0.95, 0.05)
    p[query < 10] = p[query < 10][:, ::-1]  # contradicts all
    table = pa.table(
        {
            "example_id": [str(one) for one in range(900)],
            "query_id": [f"q{one:02}" for one in query],
            "query": [f"query {one}" for one in query],
            "item_id": [str(one) for one in range(900)],
            "title": [f"title {one}" for one in range(900)],
            "text": [""] * 900,
            "label": labels,
            "split": ["train"] * 900,
        }
    )
    judged = audit.Judged(table, ("bad", "good"), p, RAW_SCHEMA.empty_table())
    found = audit.ranked(judged)
    told = [one["query_id"] for one in found.rows() if "without a look" in one["reason"]]
    assert sorted(told) == sorted(f"q{one:02}" for one in query[query < 10])
    assert found.summary["groups"] == {"queries": 10, "attributes": {}}
    assert "the labels of 10 of 60 queries look" in found.summary["notes"][-1]


def row(**changed: Any) -> dict[str, Any]:
    return {
        "rank": 1,
        "rank_in_query": 1,
        "example_id": "17",
        "query_id": "q1",
        "item_id": "B00X",
        "query": 'shoes, "red"',
        "title": "Bücher\nin two lines; 靴",
        "label": "E",
        "prediction": "I",
        "split": "train",
        "label_probability": 0.125,
        "prediction_probability": 0.5,
        "corrected_label": "",
        "score": 0.1 + 0.2,
        "found_by": "model",
        "reason": "says E",
        **changed,
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    rows = [row(), row(rank=2, example_id="18", score=-1.5, other="a key that has no column")]
    audit.write(path, path.with_suffix(".jsonl"), rows)
    back = audit.read(path, most=10)
    assert back == [{name: str(one[name]) for name in audit.COLUMNS} for one in rows]
    assert float(back[0]["score"]) == rows[0]["score"]  # to the last bit


def test_reads_no_more_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), (row(rank=rank) for rank in range(1, 6)))
    assert [one["rank"] for one in audit.read(path, most=2)] == ["1", "2"]
    assert audit.read(path, most=0) == []


@pytest.mark.parametrize("column", ["query", "title", "example_id", "label"])
@pytest.mark.parametrize("start", spreadsheet.FORMULA_STARTS)
def test_no_cell_starts_as_a_formula(tmp_path: Path, column: str, start: str) -> None:
    path = tmp_path / "audit.csv"
    text = f'{start}HYPERLINK("http://evil", "click")'
    audit.write(path, path.with_suffix(".jsonl"), [row(**{column: text})])
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))[column] == f"'{text}"
    assert audit.read(path, most=1)[0][column] == text


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), [row(score=-0.25)])
    assert audit.read(path, most=1)[0]["score"] == "-0.25"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), [row()])
    before = path.read_bytes()
    with pytest.raises(KeyError, match="rank_in_query"):
        audit.write(path, path.with_suffix(".jsonl"), [row(), {"rank": 2}])
    assert path.read_bytes() == before


def test_json_lines_hold_the_same_rows_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    rows = [row(title="=1+1"), row(rank=2)]
    audit.write(path, path.with_suffix(".jsonl"), rows)
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_ranked_counts_over_all_and_within_queries() -> None:
    pairs = pa.table(
        {
            "example_id": ["a", "b", "c", "d", "e"],
            "query_id": ["x", "y", "x", "x", "z"],
            "item_id": ["1", "2", "3", "4", "5"],
            "split": ["train"] * 5,
            "query": ["red", "blue", "red", "red", "green"],
            "title": ["t1", "t2", "t3", "t4", "t5"],
            "label": [0, 1, 1, 0, 0],
        }
    )
    probabilities = np.array([[0.75, 0.25], [0.75, 0.25], [0.125, 0.875], [0.5, 0.5], [0.5, 0.5]])
    rows = listed(pairs, ("no", "yes"), probabilities)
    assert all(set(one) == {"text", *audit.COLUMNS} for one in rows)
    chosen = ("rank", "rank_in_query", "example_id", "label", "prediction", "score")
    assert [tuple(one[name] for name in chosen) for one in rows] == [
        (1, 1, "b", "yes", "no", 0.75),
        (2, 1, "d", "no", "no", 0.5),
        (3, 1, "e", "no", "no", 0.5),
        (4, 2, "a", "no", "no", 0.25),
        (5, 3, "c", "yes", "yes", 0.125),
    ]
    assert [one["label_probability"] for one in rows] == [0.25, 0.5, 0.5, 0.75, 0.875]
    assert [one["prediction_probability"] for one in rows] == [0.75, 0.5, 0.5, 0.75, 0.875]
    assert {one["corrected_label"] for one in rows} == {""}


def test_conflicts_and_near_duplicates_come_first_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = plain(tmp_path)
    shown = [(row["example_id"], row["found_by"], row["label"], row["score"]) for row in rows]
    assert [one[:3] for one in shown] == [
        ("3", "conflicting_labels", "1"),
        ("4", "conflicting_labels", "0"),
        ("0", "near_duplicate", "1"),  # "shoes" and "shoe": a query's titles of the same words
        ("1", "near_duplicate", "0"),
        ("2", "model", "0"),
        ("5", "model", "1"),
    ]
    # 1 − p_y
    assert [float(one[3]) for one in shown] == pytest.approx([0.2, 0.8, 0.9, 0.7, 0.4, 0.25])
    assert [row["reason"] for row in rows[1:5]] == [
        "says 0, and the same query and item are given 1; the model gives 20 % to 0 and 80 % to 1",
        "says 1, and another title of the same words is given 0; the model gives 10 % to 1 and "
        "90 % to 0; of 1 similar item of this query 1 is “0” and 0 are “1”",
        "says 0, and another title of the same words is given 1; the model gives 30 % to 0 and "
        "70 % to 1; of 1 similar item of this query 1 is “1” and 0 are “0”",
        "says 0; the model gives 60 % to 0, its first choice",
    ]
    assert [row["rank"] for row in rows] == list("123456")
    said = capsys.readouterr().out
    assert "6 pairs ranked in" in said
    assert "2 of them have conflicting labels: they come first" in said
    assert "left out" not in said
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["found_by"] == {"conflicting_labels": 2, "near_duplicate": 2, "model": 2}
    assert found["wrong"] is None
    assert "fewer than 30 queries" in found["notes"][0]
