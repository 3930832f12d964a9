"""What a catalogue has of the items of rows, beside their texts."""

from pathlib import Path

import pandas as pd
import pytest

from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.serving import catalogue


def test_attributes_and_numbers_are_the_catalogues_or_else_the_rows_own(tmp_path: Path) -> None:
    pd.DataFrame(
        {"item_id": ["a", "b"], "title": ["x", "y"], "brand": ["Acme", None], "price": [None, 2.5],
         "image": [[1.0, 2.0], None]}
    ).to_json(tmp_path / "items.jsonl", orient="records", lines=True)  # fmt: skip
    (tmp_path / "pairs.csv").write_text("query,item_id,price\nq,a,9\nq,b,9\nq\nq,c,9\n")
    ranks_by = {"attribute:brand": "brand", "numeric:price": "price"}
    ranks_by |= {f"numeric:image[{at}]": "image" for at in range(2)}
    columns = {"item_id": "item_id", "title": "title"}
    entries = catalogue.read(str(tmp_path / "items.jsonl"), columns, ranks_by)
    path, own = str(tmp_path / "pairs.csv"), {"numeric:price": "price"}
    rows = table.rows(path, columns={"query": "query", "item_id": "item_id"}, further=own)
    joined = catalogue.join(rows, own, entries, path)
    found = list(joined.rows())
    assert [row.get("reason") for row in found] == [None, None, "wrong_field_count", None]
    assert found[2] == {"example_id": "pairs.csv:4", "text": "q", "reason": "wrong_field_count"}
    names = ["title", *ranks_by]
    assert [[row[name] for name in names] for row in (found[0], found[1], found[3])] == [
        ["x", "Acme", 9.0, 1.0, 2.0],
        ["y", None, 2.5, None, None],
        [None, None, 9.0, None, None],
    ]
    assert [row["example_id"] for row in (found[0], found[1], found[3])] == ["0", "1", "3"]
    assert joined.counts["ids_without_entry"] == 1


def test_columns_that_a_part_lacks_are_told_without_flags_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n1,lamp\n")
    columns = {"item_id": "item_id", "title": "title"}
    for field in ("attribute:brand", "numeric:price", "numeric:image[0]"):
        further = {field: field.split(":")[1].removesuffix("[0]")}
        with pytest.raises(UserError, match=f"item_id, title: {catalogue.FIX}$"):
            catalogue.read(str(tmp_path / "items.csv"), columns, further)


def test_lines_that_are_left_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n1,lamp\n,shoe\n1,hose\n1,lamp\n2\n")
    counts = catalogue.read(
        str(tmp_path / "items.csv"), {"item_id": "item_id", "title": "title"}, {}
    ).counts
    assert catalogue.left_out(counts) == (
        "lines left out: 1 unreadable (wrong_field_count), 1 without an id, 2 of an id that came "
        "before, 1 of these with another title or text"
    )
    assert not catalogue.left_out({**dict.fromkeys(counts, 0), "unreadable": {}})
