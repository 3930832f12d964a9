"""Columns of vectors: the forms of a cell, the names of the elements, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sie_jax.data import preparing
from sie_jax.data.readers import vectors
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.evaluation import corrections
from sie_jax.files import read_json

ROWS = [
    {"query": "lamp", "title": "a", "label": 1, "image": [0.5, -1.0, 2.0]},
    {"query": "lamp", "title": "b", "label": 0, "image": None},
    {"query": "mug", "title": "c", "label": 1, "image": [0.0, 1e-3, 3.0]},
]
NAMES = [f"numeric:image[{at}]" for at in range(3)]


def message(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0.5, 1, -2e3]", [0.5, 1.0, -2000.0]),
        ("[ 0.5 1.\n -2e3]", [0.5, 1.0, -2000.0]),  # as numpy writes it
        ("(1, None)", [1.0, None]),
        ("[NaN, 1, null]", [None, 1.0, None]),
        ("[]", []),
        (" ", []),
        (None, []),
    ],
)
def test_forms_of_a_vector(text: str | None, expected: list[float | None]) -> None:
    assert vectors.vector(text) == expected


@pytest.mark.parametrize("text", ["0.5", "[1, x]", "[[1], [2]]", "[1, Infinity]", '{"a": 1}'])
def test_cells_that_are_no_vector(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        vectors.vector(text)


def test_texts_give_the_numbers_back() -> None:
    assert vectors.vector(vectors.text([0.1, None])) == [0.1, None]
    assert vectors.text([None, None]) is None


def config(folder: Path, kind: str, rows: list[dict[str, Any]]) -> DataConfig:
    frame, path = pd.DataFrame(rows), folder / f"pairs.{kind}"
    if kind == "parquet":
        frame["image"] = [one and np.array(one, np.float32) for one in frame["image"]]
        frame.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame.to_csv(path, index=False)
    return DataConfig(source="table", path=str(path), vectors=("image",))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_each_number_is_a_column(tmp_path: Path, kind: str) -> None:
    data = config(tmp_path, kind, ROWS)
    data.check()
    found = data.read().table
    assert found.column_names[-3:] == NAMES
    numbers = [list(row.values()) for row in found.select(NAMES).to_pylist()]
    assert numbers[1] == [None] * 3
    for row in (0, 2):
        np.testing.assert_allclose(numbers[row], ROWS[row]["image"], rtol=1e-7)  # of float32


def test_vectors_that_cannot_be_features(tmp_path: Path) -> None:
    uneven = [*ROWS, {**ROWS[0], "title": "d", "image": [1.0]}]
    said = message(config(tmp_path, "jsonl", uneven).read)
    assert "record 4: the column 'image' holds 1 numbers, and 3 elsewhere" in said
    words = [{**ROWS[0], "image": "red"}]
    assert "holds no vector ('red' is no list of numbers)" in message(
        config(tmp_path, "csv", words).read
    )
    none = [{**row, "image": None} for row in ROWS]
    assert "the column 'image' has no vector: leave it out" in message(
        config(tmp_path, "jsonl", none).read
    )
    data = config(tmp_path, "csv", ROWS)
    data.vectors = ("picture",)
    assert "has no column 'picture'" in message(data.read)
    data.vectors = ("label",)
    assert "data.vectors names label, which holds labels" in message(data.check)
    data.vectors, data.features = (), ("image[0]",)
    assert "data.features names image[0], which is the name of" in message(data.check)
    wide = [{**row, "image": [0.0] * 4097} for row in ROWS]
    assert "at most 4,096 can be features" in message(config(tmp_path, "jsonl", wide).read)


def test_row_groups_hold_the_same_numbers(tmp_path: Path) -> None:
    data = config(tmp_path, "parquet", ROWS)
    data.table.labels = ("0", "1")
    found = data.row_groups()
    assert found is not None
    request = data.request(data.path)
    columns, further = table.columns_of(request), data.table.further(request)
    (rows,) = (list(table.rows_of(one, columns=columns, further=further)) for one in found[1])
    expected = data.read().table.select(NAMES).to_pylist()
    assert [{name: row[name] for name in NAMES} for row in rows] == expected


def test_missing_vectors_are_counted_once(tmp_path: Path) -> None:
    image = {at: [1.0, float(at)] for at in range(60)} | {7: None, 8: [None, 2.0]}
    rows = [
        {"query": f"lamp {at // 3}", "title": f"no {at}", "label": at % 2, "image": image[at]}
        for at in range(60)
    ]
    data = config(tmp_path, "jsonl", rows)
    data.vocabulary_size = 100
    preparing.store(data.select(data.read()), tmp_path / "run", data.encoding())
    assert read_json(tmp_path / "run" / "cleaning.json")["missing"] == {"numeric:image": 2}
    # a corrected version of the data has the vectors as they were read
    (tmp_path / "audit.csv").write_text("example_id,corrected_label\n2,1\n")
    pairs, output = str(tmp_path / "run"), tmp_path / "corrected.csv"
    assert corrections.apply(tmp_path / "audit.csv", pairs, output).changed == 1
    again = DataConfig(source="table", path=str(output), vectors=("image",)).read().table
    numbers = ["numeric:image[0]", "numeric:image[1]"]
    assert again.select(numbers).equals(data.read().table.select(numbers))
