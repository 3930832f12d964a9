"""What a catalogue has of the items of rows, beside their texts."""

from pathlib import Path

import pandas as pd

from sie_jax.data.sources import table
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
