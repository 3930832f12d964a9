"""The catalogue: what it gives the pairs of a source, and what is counted and refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from sie_jax.data import items
from sie_jax.data.items import ItemColumnsConfig, ItemsConfig
from sie_jax.data.schema import RAW_SCHEMA, LabelScale, Source
from sie_jax.data.section import DataConfig
from sie_jax.errors import UserError
from sie_jax.stages.prepare import inputs_of

COLUMNS = {"item_id": "sku", "title": "name", "text": "about"}
BRAND = "attribute:brand"
ENTRIES = """sku,name,about,brand
A,red pot,of iron,Acme
 B ,,no name,
A,red pot,of iron,Acme
A,blue pot,,
,nameless,,
Z,unseen,,
"""


def source(pairs: list[tuple[str | None, str | None]], **further: list[Any]) -> Source:
    """Pairs of these item ids and titles."""
    fixed = {"query_id": "q", "query": "tea pot", "text": "own text", "label": "1", "split": ""}
    rows = [
        {**fixed, "example_id": str(number), "item_id": item, "title": title}
        for number, (item, title) in enumerate(pairs)
    ]
    table = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
    for name, values in further.items():
        table = table.append_column(f"attribute:{name}", pa.array(values, pa.string()))
    return Source(table, LabelScale(("0", "1"), (0.0, 1.0)), "log.csv", summary={"sessions": 3})


def read(path: Path, content: str = ENTRIES, **named: Any) -> items.Catalogue:
    path.write_text(content)
    return items.read(str(path), **{"columns": COLUMNS, "attributes": ["brand"]} | named)


def message(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_item_is_there_once_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    found = read(tmp_path / "items.csv", ENTRIES + "too,few\n")
    assert found.table.to_pylist() == [
        {"item_id": "A", "title": "red pot", "text": "of iron", BRAND: "Acme"},
        {"item_id": "B", "title": None, "text": "no name", BRAND: None},
        {"item_id": "Z", "title": "unseen", "text": None, BRAND: None},
    ]
    assert found.counts == {
        "read": 7,
        "unreadable": {"wrong_field_count": 1},
        "without_id": 1,
        "repeated": 2,
        "contradicting": 1,
    }


def test_what_the_catalogue_has_is_preferred(tmp_path: Path) -> None:
    pairs = [("A", "own"), ("B", "own"), ("A ", None), ("C", "own"), (None, "own"), ("D", None)]
    given = source(pairs, brand=["mine"] * len(pairs))
    joined = items.join(given, read(tmp_path / "items.csv"))
    rows = joined.table.select(["title", "text", BRAND]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("red pot", "of iron", "Acme"),
        ("own", "no name", "mine"),
        ("red pot", "of iron", "Acme"),
        ("own", "own text", "mine"),
        ("own", "own text", "mine"),
        (None, "own text", "mine"),
    ]
    assert joined.table["item_id"].equals(given.table["item_id"])
    assert joined.catalogue["item_id"].to_pylist() == ["A", "B", "Z"]
    assert joined.summary["sessions"] == 3
    counts = joined.summary["items"]
    assert counts["joined"] == 2
    assert counts["ids_without_entry"] == 2  # C and D
    assert counts["pairs_without_entry"] == 3  # and the pair without an id


def test_attributes_of_the_catalogue_alone(tmp_path: Path) -> None:
    joined = items.join(source([("A", "own"), ("C", "own")]), read(tmp_path / "items.csv"))
    assert joined.table[BRAND].to_pylist() == ["Acme", None]


def test_numbers_and_vectors_of_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    frame = pd.DataFrame(
        {
            "sku": ["A", "B", "C"],
            "name": "x",
            "price": [1.5, None, 3.0],
            "image": [None, [1.0, 2.0], [3.0, 4.0]],
        }
    )
    frame.to_json(path, orient="records", lines=True)
    columns = {"item_id": "sku", "title": "name"}
    named: dict[str, Any] = {"columns": columns, "features": ["price"], "vectors_of": ["image"]}
    found = items.read(str(path), **named)
    frame.to_parquet(tmp_path / "items.parquet")
    assert items.read(str(tmp_path / "items.parquet"), **named).table.equals(found.table)
    given = source([("B", "b"), ("A", "a"), ("Z", "z")])
    own = pa.array([7.0, 8.0, 9.0])
    given = dataclasses.replace(given, table=given.table.append_column("numeric:price", own))
    joined = items.join(given, found).table
    assert joined["numeric:price"].to_pylist() == [7.0, 1.5, 9.0]
    assert joined["numeric:image[0]"].to_pylist() == [1.0, None, None]
    assert joined["numeric:image[1]"].to_pylist() == [2.0, None, None]
    flat = frame.drop(columns="image")
    flat.to_csv(tmp_path / "items.csv", sep=";", decimal=",", index=False)
    plain = items.read(str(tmp_path / "items.csv"), columns=columns, features=["price"])
    assert plain.table["numeric:price"].to_pylist() == [1.5, None, 3.0]
    flat.assign(price=["1,5", None, "2.5"]).to_csv(tmp_path / "items.csv", sep=";", index=False)
    both = r"items\.csv: the column 'price' has decimal commas \(item A holds '1,5'\) and decimal p"
    with pytest.raises(UserError, match=both):
        items.read(str(tmp_path / "items.csv"), columns=columns, features=["price"])
    frame.assign(price=["1", "n/a", "2"]).to_json(path, orient="records", lines=True)
    said = message(lambda: items.read(str(path), **named))
    assert f"{path}, item B: the column 'price' holds no number ('n/a' is not" in said
    frame.assign(image=[[1], [1, 2], None]).to_json(path, orient="records", lines=True)
    said = message(lambda: items.read(str(path), **named))
    assert f"{path}, item B: the column 'image' holds 2 numbers, and 1 elsewhere" in said
    section = ItemsConfig(path=str(path), features=("cosine",))
    assert "data.items names the numbers 'cosine', which is" in message(section.check)


def test_ids_that_never_join_are_refused(tmp_path: Path) -> None:
    said = message(lambda: items.join(source([("101", None)]), read(tmp_path / "items.csv")))
    path = tmp_path / "items.csv"
    assert f"none of the 1 item ids of log.csv (101, …) is in {path} (A, B, Z, …)" in said


def test_catalogues_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    assert "none of the 1 lines" in message(lambda: read(path, "sku,name,about,brand\n,a,b,c\n"))
    said = message(lambda: read(path, columns=COLUMNS | {"title": "label"}))
    assert "has no column 'label'; it has sku, name, about, brand: name it with" in said
    assert said.endswith(" --config.data.items.columns.title=COLUMN")
    section = ItemsConfig(path=str(path), columns=ItemColumnsConfig(title=""))
    assert "data.items.columns.title is empty" in message(section.check)


def test_files_of_pandas_are_catalogues(tmp_path: Path) -> None:
    """A column of ids with a missing one is of floats there, and of the same texts here."""
    frame = pd.DataFrame({"sku": [101, None, 7], "name": ["a", "b", "c"]})
    frame.to_parquet(tmp_path / "items.parquet")
    found = items.read(str(tmp_path / "items.parquet"), columns={"item_id": "sku", "title": "name"})
    assert found.table["item_id"].to_pylist() == ["101", "7"]
    frame = frame.dropna().astype({"sku": int})
    frame.to_json(tmp_path / "items.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "items.csv.gz", index=False, sep=";", encoding="utf-8-sig")
    for name in ("items.jsonl", "items.csv.gz"):
        other = items.read(str(tmp_path / name), columns={"item_id": "sku", "title": "name"})
        assert other.table.equals(found.table)


def quepid(folder: Path) -> DataConfig:
    """An export of Quepid, in which a rating may be blank, and a catalogue."""
    lines = ["query,docid,rating", "tea pot,7,3", "tea pot,8,", "tea pot,9,1"]
    lines += [f"mug {number},{number},{number % 4}" for number in range(8)]
    (folder / "quepid.csv").write_text("\n".join(lines) + "\n")
    entries = [f"{number},thing {number}" for number in range(9)]
    (folder / "items.csv").write_text("\n".join(["id,name", *entries]) + "\n")
    data = DataConfig(source="table", path=str(folder / "quepid.csv"))
    data.columns.item_id, data.columns.label = "docid", "rating"
    data.items.path = str(folder / "items.csv")
    data.items.columns = ItemColumnsConfig(item_id="id", title="name")
    return data


def test_a_table_without_titles(tmp_path: Path) -> None:
    data = quepid(tmp_path)
    data.check()
    found = data.select(data.read())
    assert set(found.kept["title"].to_pylist()) == {f"thing {number}" for number in range(8)}
    rejected = dict(
        zip(*(found.rejected[n].to_pylist() for n in ("item_id", "reason")), strict=True)
    )
    assert rejected == {"8": "label_outside_scale", "9": "missing_title"}
    assert data.row_groups() is None  # all rows are joined here
    assert data.paths == {"data": data.path, "data.items": data.items.path}
    before = inputs_of(data, "")
    (tmp_path / "items.csv").write_text("id,name\n7,another\n")
    now = inputs_of(data, "")
    assert [name for name in now if now[name] != before[name]] == ["data.items"]


def test_a_table_needs_titles_or_ids(tmp_path: Path) -> None:
    data = quepid(tmp_path)
    data.columns.item_id = ""
    assert "data.columns.item_id is empty: name the column with the ids" in message(data.check)
    data.items.path = data.columns.title = ""
    assert "data.columns.title is empty: name the column" in message(data.check)
