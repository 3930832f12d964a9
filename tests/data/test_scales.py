"""Labels that are numbers: their scale and gains, the grades of bins, and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sie_jax.config import Config
from sie_jax.data import cleaning, scales
from sie_jax.data.scales import Numbers
from sie_jax.data.sources import judgments, table
from sie_jax.errors import UserError

COLUMNS = {"query": "query", "title": "title", "label": "label"}


def write(path: Path, labels: list[str]) -> str:
    rows = [f"lamp,no {number},{label}" for number, label in enumerate(labels)]
    path.write_text("\n".join(["query,title,label", *rows]) + "\n")
    return str(path)


def message(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_numbers_are_their_own_gains(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ["0.350", "1", "0", "", "1.0", "high", "2.5", ".35"])
    found = table.read(path, columns=COLUMNS, labels=Numbers())
    assert found.scale.names == ("0", "0.35", "1", "2.5")
    assert found.scale.gains == (0.0, 0.35 / 2.5, 1 / 2.5, 1.0)
    cleaned = cleaning.clean(
        found.table, found.scale, max_query_characters=9, max_title_characters=9
    )
    assert cleaned.kept["label"].to_pylist() == [1, 2, 0, 2, 3, 1]
    assert +Counter(cleaned.counts) == {"label_outside_scale": 2}


def test_bins_are_equally_frequent_and_keep_equal_numbers_together(tmp_path: Path) -> None:
    labels = ["0"] * 12 + [str(number / 100) for number in range(1, 9)] + ["x", "-5"]
    path = write(tmp_path / "pairs.csv", labels)
    found = table.read(path, columns=COLUMNS, labels=Numbers(bins=4))
    # 21 numbers; 0 is the 2nd to 13th of them, so that the middle is in the second quarter
    assert found.summary["bins"] == [
        {"grade": "0", "from": -5.0, "to": -5.0, "rows": 1},
        {"grade": "1", "from": 0.0, "to": 0.0, "rows": 12},
        {"grade": "2", "from": 0.01, "to": 0.03, "rows": 3},
        {"grade": "3", "from": 0.04, "to": 0.08, "rows": 5},
    ]
    assert found.table["label"].to_pylist() == [*"1" * 12, *"222", *"33333", "x", "0"]
    assert found.scale.gains == (0.0, 1 / 3, 2 / 3, 1.0)


def test_distinct_numbers_make_bins_of_one_size() -> None:
    counts = {str(number): 1 for number in range(100)}
    rows = pa.table({"label": pa.array(list(counts), pa.string())})
    _, scale, found = scales.binned(rows, counts, 5, "pairs.csv")
    assert [one["rows"] for one in found] == [20] * 5
    assert scale.names == ("0", "1", "2", "3", "4")


def test_a_judgment_list_of_numbers(tmp_path: Path) -> None:
    lines = "".join(f"{number / 99} qid:1 # d{number}\n" for number in range(100))
    (tmp_path / "list.txt").write_text(f"# qid:1: lamp\n{lines}")
    found = judgments.read(str(tmp_path / "list.txt"), labels=Numbers())
    assert len(found.scale.names) == 100
    assert found.scale.gains[33] == pytest.approx(33 / 99)
    found = judgments.read(str(tmp_path / "list.txt"), labels=Numbers(bins=2))
    assert Counter(found.table["label"].to_pylist()) == {"0": 50, "1": 50}


def test_labels_that_cannot_be_numbers(tmp_path: Path) -> None:
    def read(labels: list[str], bins: int = 0) -> str:
        path = write(tmp_path / "pairs.csv", labels)
        return message(lambda: table.read(path, columns=COLUMNS, labels=Numbers(bins)))

    assert "there are 0 different ones (good, bad): a ranker" in read(["good", "bad"])
    assert "has the label -0.5, and a gain is 0 or more" in read(["-0.5", "1"])
    assert "the labels make 1 grade of data.bins=3: give more" in read(["1", "1"], 3)
    many = {str(number): 1 for number in range(cleaning.MOST_LABELS + 1)}
    said = message(lambda: scales.of_numbers(many, "pairs.csv"))
    assert said.startswith("pairs.csv has 32,768 different labels, and at most 32,767")
    path = write(tmp_path / "pairs.csv", ["0.5", "0.7"])
    said = message(lambda: table.read(path, columns=COLUMNS))
    assert said.endswith("or say that they are numbers, --config.data.continuous")


def test_configs_in_which_labels_are_numbers() -> None:
    config = Config()
    config.data.source, config.data.path, config.data.continuous = "table", "x", True
    assert "set --config.train.task=regression or another" in message(config.check)
    config.train.task, config.importance.score = "regression", "loss"
    config.check()
    config.data.bins = 5
    assert "leave one of the two out" in message(config.check)
    config.data.continuous, config.data.bins = False, 11
    assert "data.bins is 11: give 2 to 10" in message(config.check)
    config.data.bins, config.data.table.raters = 5, ("ann",)
    assert "data.bins says that labels are numbers, and data.table.raters" in message(config.check)
    config.data.source = "esci"
    assert "the source esci has grades of its own" in message(config.check)
