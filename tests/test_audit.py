import csv
from pathlib import Path
from typing import Any

import pytest

from sie_jax import audit


def row(**changed: Any) -> dict[str, Any]:
    return {
        "rank": 1,
        "example_id": "17",
        "query_id": "q1",
        "item_id": "B00X",
        "query": 'shoes, "red"',
        "title": "Bücher\nin two lines; 靴",
        "label": "E",
        "prediction": "I",
        "score": 0.1 + 0.2,
        **changed,
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    rows = [row(), row(rank=2, example_id="18", score=-1.5, split="a key that has no column")]
    audit.write(path, rows)
    back = audit.read(path, most=10)
    assert back == [{name: str(one[name]) for name in audit.COLUMNS} for one in rows]
    assert float(back[0]["score"]) == rows[0]["score"]  # to the last bit


def test_reads_no_more_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, (row(rank=rank) for rank in range(1, 6)))
    assert [one["rank"] for one in audit.read(path, most=2)] == ["1", "2"]
    assert audit.read(path, most=0) == []


@pytest.mark.parametrize("column", ["query", "title", "example_id", "label"])
@pytest.mark.parametrize("start", audit.FORMULA_STARTS)
def test_no_cell_starts_as_a_formula(tmp_path: Path, column: str, start: str) -> None:
    path = tmp_path / "audit.csv"
    text = f'{start}HYPERLINK("http://evil", "click")'
    audit.write(path, [row(**{column: text})])
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))[column] == f"'{text}"
    assert audit.read(path, most=1)[0][column] == text


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, [row(score=-0.25)])
    assert audit.read(path, most=1)[0]["score"] == "-0.25"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, [row()])
    before = path.read_bytes()
    with pytest.raises(KeyError, match="example_id"):
        audit.write(path, [row(), {"rank": 2}])
    assert path.read_bytes() == before
