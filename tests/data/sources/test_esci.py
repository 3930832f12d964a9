"""The ESCI reader on small files in the official layout, and on the real sample if it is there."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data.cleaning import clean
from sie_jax.data.schema import ESCI_SCALE, RAW_SCHEMA
from sie_jax.data.sources import esci
from sie_jax.data.splitting import split
from sie_jax.errors import UserError

# id, query, query id, product, locale, label, small, large, split
EXAMPLES = [
    (1, "red shoes", 10, "A", "us", "E", 1, 1, "train"),
    (2, "red shoes", 10, "B", "us", "S", 0, 1, "train"),
    (3, "blue sofa", 11, "C", "us", "C", 1, 1, "test"),
    (4, "blue sofa", 11, "gone", "us", "I", 0, 1, "test"),
    (5, "red shoes", 10, "A", "es", "I", 0, 1, "train"),
    (6, "lamp", 12, "D", "us", "I", 0, 1, "train"),
    (7, "lamp", 12, "E", "us", "E", 0, 1, "train"),
    (8, "lamp", 12, "E", "jp", "E", 0, 0, "train"),
]
# id, locale, title, description, bullet points
PRODUCTS = [
    ("E", "us", "lamp", None, "bright"),
    ("A", "es", "zapatos", "rojos", None),
    ("A", "us", "shoes", "red", "size 7\nleather"),
    ("B", "us", "boots", "None", None),
    ("C", "us", "sofa cover", None, "None"),
    ("D", "us", "None", "a thing", ""),
    ("unjudged", "us", "hat", None, None),
]
EXAMPLE_COLUMNS = ["example_id", "query", "query_id", "product_id", "product_locale",
                   "esci_label", "small_version", "large_version", "split"]  # fmt: skip
PRODUCT_COLUMNS = ["product_id", "product_locale", "product_title", "product_description",
                   "product_bullet_point"]  # fmt: skip


def table(columns: list[str], rows: list[tuple[Any, ...]]) -> pa.Table:
    values = zip(*rows, strict=True)
    return pa.table({name: list(column) for name, column in zip(columns, values, strict=True)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(table(EXAMPLE_COLUMNS, EXAMPLES), tmp_path / esci.EXAMPLES)
    pq.write_table(table(PRODUCT_COLUMNS, PRODUCTS), tmp_path / esci.PRODUCTS)
    return tmp_path


def test_judgments_are_joined_to_their_products(folder: Path) -> None:
    source = esci.read(str(folder))
    assert source.scale == ESCI_SCALE
    assert source.location == str(folder)
    assert source.table.schema == RAW_SCHEMA
    rows = [tuple(row.values()) for row in source.table.to_pylist()]
    assert rows == [
        ("1", "10", "red shoes", "A", "shoes", "red size 7\nleather", "E", "train", None),
        ("2", "10", "red shoes", "B", "boots", "", "S", "train", None),
        ("3", "11", "blue sofa", "C", "sofa cover", "", "C", "test", None),
        ("4", "11", "blue sofa", "gone", None, "", "I", "test", None),
        ("6", "12", "lamp", "D", None, "a thing", "I", "train", None),
        ("7", "12", "lamp", "E", "lamp", "bright", "E", "train", None),
    ]


def test_brand_and_colour_are_attributes_where_the_products_have_them(folder: Path) -> None:
    products = pq.read_table(folder / esci.PRODUCTS)
    brands = {"A": "Acme", "B": "None", "C": "Sofa & Co", "E": ""}
    values = [brands.get(item) for item in products["product_id"].to_pylist()]
    products = products.append_column("product_brand", pa.array(values, pa.string()))
    pq.write_table(products, folder / esci.PRODUCTS)
    found = esci.read(str(folder)).table
    assert found.column_names == [*RAW_SCHEMA.names, "attribute:brand"]
    assert found["attribute:brand"].to_pylist() == ["Acme", None, "Sofa & Co", None, None, None]
    colours = pa.array(["red"] * len(products), pa.string())
    pq.write_table(products.append_column("product_color", colours), folder / esci.PRODUCTS)
    found = esci.read(str(folder)).table
    assert found["attribute:color"].to_pylist() == ["red"] * 3 + [None] + ["red"] * 2


def test_joining_in_pieces_is_joining_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = esci.read(str(folder)).table
    monkeypatch.setattr(esci, "_CHUNK_ROWS", 4)
    assert esci.read(str(folder)).table.equals(whole)


def test_the_small_version(folder: Path) -> None:
    assert esci.read(str(folder), version="small").table["example_id"].to_pylist() == ["1", "3"]


def test_another_locale_reads_its_own_products(folder: Path) -> None:
    (row,) = esci.read(str(folder), locale="es").table.to_pylist()
    assert (row["example_id"], row["item_id"], row["title"]) == ("5", "A", "zapatos")


def test_all_locales_keep_their_ids_apart(folder: Path) -> None:
    rows = {row["example_id"]: row for row in esci.read(str(folder), locale="").table.to_pylist()}
    assert list(rows) == ["1", "2", "3", "4", "5", "6", "7"]
    assert (rows["1"]["query_id"], rows["1"]["item_id"]) == ("us:10", "us:A")
    assert (rows["5"]["query_id"], rows["5"]["item_id"]) == ("es:10", "es:A")
    assert (rows["1"]["title"], rows["5"]["title"]) == ("shoes", "zapatos")


def test_cleaning_rejects_what_has_no_title(folder: Path) -> None:
    source = esci.read(str(folder))
    result = clean(source.table, source.scale, max_query_characters=99, max_title_characters=99)
    assert result.rejected["example_id"].to_pylist() == ["4", "6"]
    assert set(result.rejected["reason"].to_pylist()) == {"missing_title"}


def test_a_product_listed_twice_is_read_once(folder: Path) -> None:
    twice = [*PRODUCTS, ("A", "us", "later shoes", None, None)]
    pq.write_table(table(PRODUCT_COLUMNS, twice), folder / esci.PRODUCTS)
    titles = esci.read(str(folder)).table["title"].to_pylist()
    assert len(titles) == 6
    assert titles[0] == "shoes"


def told(call: Any) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    return message


def stored(folder: Path, kind: str) -> None:
    """Saves both files again with other types of the same meaning."""
    for name in (esci.EXAMPLES, esci.PRODUCTS):
        saved = pq.read_table(folder / name)
        for at, field in enumerate(saved.schema):
            column = saved[field.name].combine_chunks()
            if field.name.endswith("_version"):
                column = column.cast({"category": pa.string()}.get(kind, pa.bool_()))
            elif field.name in ("example_id", "query_id"):
                others = {"category": pa.float64(), "large_string": pa.decimal128(20, 0)}
                column = column.cast(others.get(kind, pa.string()))
            elif kind == "category":
                column = column.dictionary_encode()
            else:
                column = column.cast(pa.string()).cast(getattr(pa, kind)())
            saved = saved.set_column(at, field.name, column)
        pq.write_table(saved, folder / name)


@pytest.mark.parametrize("kind", ["large_string", "string_view", "category", "binary"])
@pytest.mark.parametrize("locale", ["us", ""])
def test_the_type_counts_and_not_its_storage(folder: Path, kind: str, locale: str) -> None:
    plain = esci.read(str(folder), locale=locale)
    stored(folder, kind)
    again = esci.read(str(folder), locale=locale)
    assert again.table.equals(plain.table)
    assert again.catalogue.equals(plain.catalogue)


def test_a_text_that_is_not_utf8(folder: Path) -> None:
    products = pq.read_table(folder / esci.PRODUCTS)
    titles = pa.array([b"B\xfccher"] * len(PRODUCTS), pa.binary()).view(pa.string())
    pq.write_table(products.set_column(2, "product_title", titles), folder / esci.PRODUCTS)
    assert f"{folder / esci.PRODUCTS} cannot be read" in told(lambda: esci.read(str(folder)))


def test_a_missing_folder(tmp_path: Path) -> None:
    message = told(lambda: esci.read(str(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere") in message
    assert esci.EXAMPLES in message


def test_an_empty_path() -> None:
    assert "'' does not exist" in told(lambda: esci.read(""))


def test_a_file_in_place_of_a_folder(folder: Path) -> None:
    assert "is not a folder" in told(lambda: esci.read(str(folder / esci.EXAMPLES)))


def test_a_missing_file(folder: Path) -> None:
    (folder / esci.PRODUCTS).unlink()
    message = told(lambda: esci.read(str(folder)))
    assert f"{esci.PRODUCTS} is missing" in message
    assert f"holds {esci.EXAMPLES}" in message


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds nothing" in told(lambda: esci.read(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "columns", "rows", "lost"),
    [
        (esci.EXAMPLES, EXAMPLE_COLUMNS, EXAMPLES, "esci_label"),
        (esci.PRODUCTS, PRODUCT_COLUMNS, PRODUCTS, "product_title"),
    ],
)
def test_a_missing_column(folder: Path, name: str, columns: Any, rows: Any, lost: str) -> None:
    pq.write_table(table(columns, rows).drop_columns([lost]), folder / name)
    message = told(lambda: esci.read(str(folder)))
    assert f"{folder / name} has no column {lost!r}; it has {columns[0]}" in message


def test_a_file_that_is_not_parquet(folder: Path) -> None:
    (folder / esci.EXAMPLES).write_text("example_id,query\n")
    message = told(lambda: esci.read(str(folder)))
    assert f"{folder / esci.EXAMPLES} cannot be read as Parquet" in message


def test_a_locale_or_version_without_judgments(folder: Path) -> None:
    message = told(lambda: esci.read(str(folder), locale="es", version="small"))
    assert "locale 'es' and version 'small'" in message
    assert "large: es (1), us (6); small: us (2)" in message
    assert "version is 'tiny'" in told(lambda: esci.read(str(folder), version="tiny"))


@pytest.mark.skipif(
    not os.environ.get("SIE_JAX_DATA"), reason="the ESCI sample is found through SIE_JAX_DATA"
)
def test_the_real_sample() -> None:
    path = Path(os.environ["SIE_JAX_DATA"]) / "esci"
    source = esci.read(str(path))
    assert Counter(source.table["label"].to_pylist()) == {"E": 3389, "S": 1898, "C": 305, "I": 1086}
    result = clean(source.table, source.scale, max_query_characters=500, max_title_characters=2000)
    assert result.kept.num_rows + result.rejected.num_rows == 6678
    # No pair is judged twice and no title is missing in this sample, so no rule applies.
    pairs = source.table.select(["query", "item_id"]).to_pylist()
    assert len({(row["query"].casefold(), row["item_id"]) for row in pairs}) == 6678
    assert source.table["title"].null_count == 0
    assert result.rejected.num_rows == 0
    kept, leaked = split(result.kept, validation=0.1, test=0.2, seed=0)
    assert leaked.num_rows == 0
    queries: dict[str, set[str]] = {}
    for row in kept.select(["query", "split"]).to_pylist():
        queries.setdefault(row["split"], set()).add(row["query"])
    assert len(queries["test"]) == 45
    assert len(queries["train"]) + len(queries["validation"]) == 105
    # Each row's title is its product's, looked up row by row.
    titles = {
        row["product_id"]: row["product_title"]
        for row in pq.read_table(path / esci.PRODUCTS).to_pylist()
    }
    assert source.table["title"].to_pylist() == [
        titles[item] for item in source.table["item_id"].to_pylist()
    ]


def test_the_catalogue_has_every_product_of_the_locale(folder: Path) -> None:
    catalogue = {row["item_id"]: row for row in esci.read(str(folder)).catalogue.to_pylist()}
    assert list(catalogue) == ["E", "A", "B", "C", "D", "unjudged"]
    assert catalogue["A"] == {"item_id": "A", "title": "shoes", "text": "red size 7\nleather"}
    assert catalogue["unjudged"] == {"item_id": "unjudged", "title": "hat", "text": None}
    assert catalogue["D"]["title"] is None
    everywhere = esci.read(str(folder), locale="").catalogue["item_id"].to_pylist()
    assert "es:A" in everywhere
    assert "us:A" in everywhere
