"""The WANDS reader on small files in the official layout, with the quirks of the real ones."""

from pathlib import Path

import pytest

from sie_jax.data.cleaning import clean
from sie_jax.data.schema import ATTRIBUTE, RAW_SCHEMA
from sie_jax.data.sources import wands
from sie_jax.errors import UserError

QUERY_HEADER = "query_id\tquery\tquery_class"
QUERIES = [
    "0\tsalon chair\tMassage Chairs",
    '208\t"fawkes 36"" blue vanity"\tVanities',
    "197\tdull bed\t",  # a query without a class
]
PRODUCT_HEADER = (
    "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\t"
    "product_features\trating_count\taverage_rating\treview_count"
)
PRODUCTS = [
    "7\tsalon chair\tMassage Chairs|Recliners\tFurniture / Office / Massage Chairs\t"
    '"a ""great"" chair ,\nin two lines"\tcolor : red|width:64.7\t15.0\t4.5\t15.0',
    # no description, ratings; inches as two apostrophes
    "3\tfawkes 36 '' vanity\tVanities\tHome Improvement / Vanities\t\twidth:36\t\t\t",
    "5\tdécor\t\t\tonly described\t\t1.0\t5.0\t1.0",
    "9\tunjudged\tBeds\tFurniture\t\t\t\t\t",
    "11\tbare\tBeds\tFurniture\t\t\t\t\t",
]
LABEL_HEADER = "id\tquery_id\tproduct_id\tlabel"
LABELS = [
    "0\t0\t7\tExact",
    "1\t0\t3\tIrrelevant",
    "4\t208\t3\tPartial",
    "5\t208\t5\tIrrelevant",
    "6\t197\t11\tPartial",
]


def write(
    folder: Path,
    *,
    queries: list[str] = QUERIES,
    products: list[str] = PRODUCTS,
    labels: list[str] = LABELS,
) -> Path:
    """The three files; a byte that is not UTF-8 is written as a surrogate."""
    for name, header, lines in (
        (wands.QUERIES, QUERY_HEADER, queries),
        (wands.PRODUCTS, PRODUCT_HEADER, products),
        (wands.LABELS, LABEL_HEADER, labels),
    ):
        text = "\n".join([header, *lines, ""])
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


def told(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        wands.read(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_judgments_are_joined_to_their_queries_and_products(tmp_path: Path) -> None:
    source = wands.read(str(write(tmp_path)))
    assert source.scale.names == ("Irrelevant", "Partial", "Exact")
    assert source.scale.gains == (0.0, 0.5, 1.0)
    assert source.location == str(tmp_path)
    assert source.unreadable.num_rows == 0
    attributes = [ATTRIBUTE + "product_class", ATTRIBUTE + "top_category"]
    assert source.table.column_names == [*RAW_SCHEMA.names, *attributes]
    chair = 'a "great" chair ,\nin two lines color : red|width:64.7'
    inches, vanity = 'fawkes 36" blue vanity', "fawkes 36 '' vanity"
    home = ("Vanities", "Home Improvement")
    assert [tuple(row.values()) for row in source.table.to_pylist()] == [
        ("0", "0", "salon chair", "7", "salon chair", chair, "Exact", "", None,
         "Massage Chairs|Recliners", "Furniture"),
        ("1", "0", "salon chair", "3", vanity, "width:36", "Irrelevant", "", None, *home),
        ("4", "208", inches, "3", vanity, "width:36", "Partial", "", None, *home),
        ("5", "208", inches, "5", "décor", "only described", "Irrelevant", "", None, None, None),
        ("6", "197", "dull bed", "11", "bare", "", "Partial", "", None, "Beds", "Furniture"),
    ]  # fmt: skip


def test_joining_in_pieces_is_joining_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wands.read(str(write(tmp_path))).table
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 16)  # two rows a piece
    assert wands.read(str(tmp_path)).table.equals(whole)


def test_broken_lines_of_all_files_are_kept_with_their_place(tmp_path: Path) -> None:
    write(
        tmp_path,
        queries=[*QUERIES, "300\tno class field"],
        products=[*PRODUCTS, "8\t\udcff\tBeds\tFurniture\t\t\t\t\t", "13\tcut off"],
        labels=[*LABELS, "7\t0\t7", "", '8\t0\t"7"x\tExact\t', "9\t0\t11\tExact"],
    )
    source = wands.read(str(tmp_path))
    assert source.table["example_id"].to_pylist() == ["0", "1", "4", "5", "6", "9"]
    bad = source.unreadable.select(["example_id", "text", "reason"]).to_pylist()
    assert [tuple(row.values()) for row in bad] == [
        ("query.csv:5", "300\tno class field", "wrong_field_count"),
        # the first product takes two lines
        ("product.csv:8", "8\t\ufffd\tBeds\tFurniture\t\t\t\t\t", "not_utf8"),
        ("product.csv:9", "13\tcut off", "wrong_field_count"),
        ("label.csv:7", "7\t0\t7", "wrong_field_count"),
        ("label.csv:9", '8\t0\t"7"x\tExact\t', "unparsable_line"),
    ]


def test_cleaning_rejects_a_judgment_of_nothing_and_an_unknown_label(tmp_path: Path) -> None:
    write(
        tmp_path,
        queries=[*QUERIES, "\tnobody's\t"],
        products=[*PRODUCTS, "\tnobody's\t\t\t\t\t\t\t"],
        labels=[
            *LABELS,
            "20\t999\t7\tExact",
            "21\t0\t999\tExact",
            "22\t0\t5\tPerfect",
            "23\t0\t11\t",
            "24\t\t7\tExact",
            "25\t0\t\tExact",
        ],
    )
    source = wands.read(str(tmp_path))
    result = clean(source.table, source.scale, max_query_characters=99, max_title_characters=99)
    assert result.kept["example_id"].to_pylist() == ["0", "1", "4", "5", "6"]
    assert result.kept["label"].to_pylist() == [2, 0, 1, 0, 1]
    rejected = result.rejected.select(["example_id", "reason"]).to_pylist()
    assert [tuple(row.values()) for row in rejected] == [
        ("20", "missing_query"),
        ("21", "missing_title"),
        ("22", "label_outside_scale"),
        ("23", "label_outside_scale"),
        ("24", "missing_query"),
        ("25", "missing_title"),
    ]


def test_space_around_ids_is_cut_and_what_comes_twice_is_read_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        queries=["0\tfirst\t", "0\tsecond\t"],
        products=[line.replace("9\tunjudged", " 7 \tlater chair") for line in PRODUCTS],
        labels=[" 1 \t0 \t 7\t Exact ", "\t0\t3\tPartial"],
    )
    first, second = wands.read(str(tmp_path)).table.to_pylist()
    assert (first["example_id"], first["query_id"], first["item_id"]) == ("1", "0", "7")
    assert (first["query"], first["title"], first["label"]) == ("first", "salon chair", "Exact")
    assert second["example_id"] == "label.csv:3"  # a judgment without an id


def test_a_missing_folder_or_file(tmp_path: Path) -> None:
    assert told(tmp_path / "no").startswith("wands: ")
    write(tmp_path)
    for name in (wands.LABELS, wands.PRODUCTS, wands.QUERIES):
        (tmp_path / name).unlink()
        said = told(tmp_path)
        assert f"wands: {name} is missing; {tmp_path} holds " in said
        assert "give the folder that holds query.csv, product.csv, label.csv" in said


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (wands.QUERIES, "query"),
        (wands.PRODUCTS, "category hierarchy"),
        (wands.PRODUCTS, "product_features"),
        (wands.LABELS, "label"),
    ],
)
def test_a_missing_column(tmp_path: Path, name: str, column: str) -> None:
    file = write(tmp_path) / name
    header, *lines = file.read_text(encoding="utf-8").split("\n")
    names = ["renamed" if one == column else one for one in header.split("\t")]
    file.write_text("\n".join(["\t".join(names), *lines]), encoding="utf-8")
    expected = f"{file} has no column {column!r}; it has {', '.join(names)}: give the"
    assert told(tmp_path).startswith(expected)


@pytest.mark.parametrize("name", [wands.QUERIES, wands.PRODUCTS, wands.LABELS])
def test_files_that_cannot_be_read_as_a_whole(tmp_path: Path, name: str) -> None:
    file = write(tmp_path) / name
    header, *_ = file.read_text(encoding="utf-8").split("\n")
    for content, words in (
        ("", f"{file} is empty"),
        (header, f"{file} has no line that is a record"),
        (f"{header}\ncut off", f"{file} has no line that is a record"),
        (header.replace("\t", ","), f"the header of {file} is a single field"),
        (f'{header}\n"1\t2\n', f"{file}, line 2: a quote opens that does not close"),
    ):
        file.write_text(content, encoding="utf-8")
        assert words in told(tmp_path)


def test_the_catalogue_has_every_product(tmp_path: Path) -> None:
    source = wands.read(str(write(tmp_path)))
    catalogue = {row["item_id"]: row for row in source.catalogue.to_pylist()}
    judged = {row["item_id"]: row for row in source.table.to_pylist() if row["title"]}
    assert catalogue.keys() > judged.keys()
    for item_id, row in judged.items():
        assert {name: row[name] for name in ("item_id", "title", "text")} == catalogue[item_id]
