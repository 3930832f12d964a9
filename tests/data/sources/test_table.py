"""Tables: the same rows through every format, derived ids, and every kind of bad input."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data import cleaning
from sie_jax.data.schema import ATTRIBUTE, CURRENT, NUMERIC, RATER, RAW_SCHEMA, Source
from sie_jax.data.sources import table
from sie_jax.data.sources.section import Request
from sie_jax.errors import UserError

COLUMNS = {"query": "search", "title": "name", "label": "grade"}
ROWS: list[dict[str, Any]] = [
    {"search": "red shoes", "name": 'Shoes, "red"\nsize 7', "grade": 2, "brand": "Acme", "a": 2},
    {"search": "Red  SHOES", "name": "Bücher", "grade": 0, "brand": None, "a": 1},
    {"search": "靴", "name": "=1+1", "grade": 1, "brand": "B", "a": None},
]


def quoted(value: Any) -> str:
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS, name: str = "pairs") -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(map(quoted, row.values())) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> Source:
    return table.read(str(path), **{"columns": COLUMNS, **options})


def message(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    source = read(write(tmp_path, kind), attributes=["brand"], raters=["a"])
    names = [*RAW_SCHEMA.names, ATTRIBUTE + "brand", RATER + "a"]
    assert source.table.column_names == names
    assert source.scale.names == ("0", "1", "2")
    assert source.scale.gains == (0.0, 0.5, 1.0)
    rows = source.table.to_pylist()
    assert [row["example_id"] for row in rows] == ["0", "1", "2"]
    assert [row["title"] for row in rows] == [row["name"] for row in ROWS]
    assert [row["label"] for row in rows] == ["2", "0", "1"]
    assert [row[ATTRIBUTE + "brand"] for row in rows] == ["Acme", None, "B"]
    assert [row[RATER + "a"] for row in rows] == ["2", "1", None]
    assert source.unreadable.num_rows == 0


NUMBERS: dict[str, tuple[list[Any], list[float | None]]] = {
    "price": ([Decimal("12.50"), Decimal("3.00"), None], [12.5, 3.0, None]),
    "stock": ([7, None, 0], [7.0, None, 0.0]),
    "new": ([True, False, None], [1.0, 0.0, None]),
    "rate": ([0.1, 1e-3, float("nan")], [0.1, 1e-3, None]),
    "none": ([None, None, None], [None, None, None]),
}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_of_numbers_are_the_same_from_every_format(tmp_path: Path, kind: str) -> None:
    rows = [
        row | {name: values[place] for name, (values, _) in NUMBERS.items()}
        for place, row in enumerate(ROWS)
    ]
    if kind == "jsonl":
        rows = [row | {"price": row["price"] and float(row["price"])} for row in rows]
    path = write(tmp_path, kind, rows)
    columns = COLUMNS | {"current": "price"}
    source = read(path, columns=columns, attributes=["brand"], features=list(NUMBERS))
    names = [ATTRIBUTE + "brand", *(NUMERIC + name for name in NUMBERS), CURRENT]
    assert source.table.column_names == [*RAW_SCHEMA.names, *names]
    for name, (_, expected) in NUMBERS.items():
        assert source.table[NUMERIC + name].type == pa.float64()
        assert source.table[NUMERIC + name].to_pylist() == expected, name
    assert source.table[CURRENT].to_pylist() == NUMBERS["price"][1]
    plain = read(path, attributes=["brand"]).table
    assert source.table.select(plain.column_names).equals(plain)
    assert table.read(str(path), columns=COLUMNS | {"current": ""}).table.schema == RAW_SCHEMA


@pytest.mark.parametrize("option", ["features", "current"])
@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("csv", "n/a", "line 5: the column 'a' holds 'n/a', which is not a finite number"),
        ("tsv", "inf", "line 5: the column 'a' holds 'inf'"),
        ("jsonl", float("inf"), "line 3: the column 'a' holds 'Infinity'"),
        ("jsonl", [1], "line 3: the column 'a' holds '[1]'"),
        ("parquet", float("-inf"), "row 3: the column 'a' holds '-Infinity'"),
        ("parquet", datetime.date(2026, 1, 2), "row 3: the column 'a' holds '2026-01-02'"),
    ],
    ids=str,
)
def test_a_cell_that_is_no_number_is_named(
    tmp_path: Path, kind: str, value: Any, shown: str, option: str
) -> None:
    rows = [row | {"a": None} for row in ROWS[:2]] + [ROWS[2] | {"a": value}]
    path = write(tmp_path, kind, rows)  # the title of the first row has two lines
    options: dict[str, Any] = {"features": ["a"]}
    if option == "current":
        options = {"columns": COLUMNS | {"current": "a"}}
    said = message(path, **options)
    assert said.startswith(f"{path}, {shown}")
    assert "leave the cell empty if the number is missing" in said


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_numbers_that_is_not_there(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    there = "no column 'price'; it has search, name, grade, brand, a"
    assert there in message(path, features=["price"])
    assert there in message(path, columns=COLUMNS | {"current": "price"})


def test_ids_are_derived_from_texts_and_taken_where_they_are(tmp_path: Path) -> None:
    first, second, third = read(write(tmp_path, "csv")).table.to_pylist()
    assert first["query_id"] == second["query_id"] != third["query_id"]
    assert len({first["item_id"], second["item_id"], third["item_id"]}) == 3
    rows = [row | {"id": f"x{i}", "q": "" if i else "mine"} for i, row in enumerate(ROWS)]
    columns = COLUMNS | {"example_id": "id", "query_id": "q", "item_id": ""}
    taken = read(write(tmp_path, "csv", rows), columns=columns).table.to_pylist()
    assert [row["example_id"] for row in taken] == ["x0", "x1", "x2"]
    assert [row["query_id"] for row in taken] == ["mine", second["query_id"], third["query_id"]]


def test_parts_of_a_folder_are_one_table(tmp_path: Path) -> None:
    write(tmp_path, "csv", ROWS[2:], "part-1")
    write(tmp_path, "csv", ROWS[:2], "part-0")
    (tmp_path / "_SUCCESS").touch()
    rows = read(tmp_path).table.to_pylist()
    assert [row["title"] for row in rows] == [row["name"] for row in ROWS]
    assert [row["example_id"] for row in rows] == ["0", "1", "2"]


def test_columns_that_all_parts_have(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"title": "lamp", "price": 1, "colour": "red"}\n')
    (tmp_path / "b.jsonl").write_text('{"title": "lamp", "price": "2", "size": 3}\n')
    types, lacking = table.shared_types(str(tmp_path))
    assert types == {"title": pa.string(), "price": pa.string()}
    assert lacking == ["colour", "size"]


def test_batches_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(write(tmp_path, "csv")).table
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 8)  # batches of one row
    assert read(tmp_path / "pairs.csv").table.equals(whole)


def test_bad_lines_of_a_csv_are_counted_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        b'\xef\xbb\xbfsearch,name,grade\na,"t\nwo",0\nb,x\n\nc,\xff\xfe,1\nd,"x"y,1\ne, z ,"1 "\n'
    )
    source = read(path)
    assert source.table["title"].to_pylist() == ["t\nwo", " z "]
    assert source.table["label"].to_pylist() == ["0", "1"]
    assert source.table["example_id"].to_pylist() == ["0", "4"]  # unreadable records count
    bad = source.unreadable.select(["example_id", "text", "reason"]).to_pylist()
    assert [tuple(row.values()) for row in bad] == [
        ("pairs.csv:4", "b,x", "wrong_field_count"),
        ("pairs.csv:6", "c,\ufffd\ufffd,1", "not_utf8"),
        ("pairs.csv:7", 'd,"x"y,1', "unparsable_line"),
    ]


def test_bad_json_lines_are_counted_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = '{"search": "a", "name": "t", "grade": %s}\n'
    half = '{"search": "\\ud83d", "name": "t", "grade": 1}\n'
    path.write_text(good % "0" + '{"search": "a"\n[1]\n\n' + good % "1.0" + half + good % "null")
    source = read(path)
    assert source.table["label"].to_pylist() == ["0", "1", None]
    bad = source.unreadable.select(["example_id", "reason"]).to_pylist()
    assert [tuple(row.values()) for row in bad] == [
        ("pairs.jsonl:2", "unparsable_line"),
        ("pairs.jsonl:3", "unparsable_line"),
        ("pairs.jsonl:6", "unparsable_line"),
    ]


def test_a_json_line_nested_too_deep_is_not_a_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = '{"search": "a", "name": "t", "grade": %s}\n'
    path.write_text(good % "0" + '{"search": ' + "[" * 100_000 + "\n" + good % "1")
    source = read(path)
    assert source.table["label"].to_pylist() == ["0", "1"]
    (bad,) = source.unreadable.to_pylist()
    assert (bad["example_id"], bad["reason"]) == ("pairs.jsonl:2", "unparsable_line")
    assert table.column_names(str(path)) == ["search", "name", "grade"]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_bytes_of_a_parquet_file_that_are_not_utf8_are_counted(tmp_path: Path, kind: str) -> None:
    # what a writer that does not check leaves in a column of strings
    names = pa.array([b"B\xfccher", "Bücher".encode(), None], pa.binary())
    if kind == "large_string":
        names = names.cast(pa.large_binary()).view(pa.large_string())
    elif kind != "binary":
        names = names.view(pa.string())
    if kind == "dictionary":
        names = names.dictionary_encode()
    columns = {"search": ["a", "b", "c"], "name": names, "grade": [1, 0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    source = read(tmp_path / "pairs.parquet")
    assert source.table["title"].to_pylist() == ["Bücher", None]
    (bad,) = source.unreadable.to_pylist()
    assert (bad["example_id"], bad["reason"]) == ("pairs.parquet:1", "not_utf8")
    assert "B\ufffdcher" in bad["text"]


def test_a_rating_outside_the_scale_takes_the_row_out(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"a": 9}]
    source = read(write(tmp_path, "csv", rows), raters=["a"], attributes=["brand"])
    assert source.table.num_rows == 3
    (bad,) = source.unreadable.to_pylist()
    assert bad["reason"] == "rater_outside_scale"
    assert (bad["query"], bad["label"], bad[RATER + "a"]) == ("red shoes", "2", "9")
    rows = [row | {"a": "strong"} for row in ROWS]
    said = message(write(tmp_path, "csv", rows), raters=["a"])
    assert "rater column a has strong, none of which is on the scale 0, 1, 2" in said


def test_named_labels(tmp_path: Path) -> None:
    rows = [row | {"grade": name} for row, name in zip(ROWS, ("yes", "no", "maybe"), strict=True)]
    path = write(tmp_path, "csv", rows)
    said = message(path)
    assert "yes (1)" in said
    assert "--config.data.table.labels=" in said
    scale = read(path, labels=["no", "maybe", "yes"], gains=[0, 0.25, 1]).scale
    assert (scale.names, scale.gains) == (("no", "maybe", "yes"), (0, 0.25, 1))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_sign_for_what_is_missing_is_no_word(tmp_path: Path, kind: str) -> None:
    """In text files an empty cell is that sign; the word is the user's, but for a label."""
    words = kind in ("csv", "tsv")
    nan, lost = ("NaN", None) if words else (float("nan"), float("nan"))
    rows = [
        {"search": f"q {place}", "name": "t", "grade": float(place % 2), "q": 7.0, "i": 8.0}
        for place in range(4)
    ]
    rows[1] |= {"q": lost, "i": lost}
    rows[2] |= {"grade": nan}
    if kind == "jsonl":
        rows[3] |= {"name": nan}
    columns = COLUMNS | {"query_id": "q", "item_id": "i"}
    found = read(write(tmp_path, kind, rows), columns=columns)
    first, second, third, fourth = found.table.to_pylist()
    assert found.scale.names == ("0", "1")
    assert (first["query_id"], first["item_id"]) == (("7.0", "8.0") if words else ("7", "8"))
    assert first["label"] == "0"
    assert second["query_id"].startswith("q")
    assert second["item_id"].startswith("i")
    assert third["label"] == ("NaN" if words else None)
    assert fourth["title"] == (None if kind == "jsonl" else "t")
    cleaned = cleaning.clean(
        found.table.slice(1), found.scale, max_query_characters=9, max_title_characters=9
    )
    assert cleaned.counts["label_outside_scale"] == 1
    assert cleaned.counts["missing_title"] == (kind == "jsonl")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_that_are_false_and_true_are_a_scale(tmp_path: Path, kind: str) -> None:
    rows = [row | {"grade": bool(row["grade"])} for row in ROWS]
    source = read(write(tmp_path, kind, rows))
    assert [name.lower() for name in source.scale.names] == ["false", "true"]
    assert [label.lower() for label in source.table["label"].to_pylist()] == [
        "true", "false", "true"
    ]  # fmt: skip
    assert "there are True (1), yes (1), false (1)" in message(
        write(tmp_path, "csv", [row | {"grade": word} for row, word in
                                zip(ROWS, ("True", "yes", "false"), strict=True)])
    )  # fmt: skip


def test_decimal_commas_are_where_semicolons_separate(tmp_path: Path) -> None:
    text = "search;name;grade;price\nred shoes;1,5;1,0;12,50\nred shoes;boot;0,0;\n"
    (tmp_path / "pairs.csv").write_text(text)
    found = read(tmp_path / "pairs.csv", features=["price"])
    assert found.table["title"].to_pylist() == ["1,5", "boot"]  # a text is no number
    assert found.table["label"].to_pylist() == ["1", "0"]
    assert found.table["numeric:price"].to_pylist() == [12.5, None]
    (tmp_path / "pairs.csv").write_text(text.replace("12,50", "1.234,50"))
    assert "line 2: the column 'price' holds '1.234,50'" in message(
        tmp_path / "pairs.csv", features=["price"]
    )
    (tmp_path / "pairs.csv").write_text(text + "red shoes;hat;1,0; 1.234\n")  # 1234 or 1.234?
    assert message(tmp_path / "pairs.csv", features=["price"]).endswith(
        ": the column 'price' has decimal commas (line 2 holds '12,50') and decimal points "
        "(line 4 holds '1.234'): write all its numbers in one of the two ways"
    )
    (tmp_path / "pairs.csv").write_text(text.replace(",", ".").replace(";", ",") + 'a,b,1,"2,5"\n')
    assert "holds '2,5'" in message(tmp_path / "pairs.csv", features=["price"])


def test_whole_numbers_with_a_point_are_grades_of_a_named_scale_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("search,name,grade\na,b,2.0\na,c,1.50\na,d,0\n")
    assert read(path, labels=["0", "2"]).table["label"].to_pylist() == ["2", "1.50", "0"]
    assert read(path, labels=["0", "2.0"]).table["label"].to_pylist() == ["2.0", "1.50", "0"]


def test_true_labels_that_are_never_on_the_scale_are_refused(tmp_path: Path) -> None:
    columns = COLUMNS | {"truth": "a"}
    path = write(tmp_path, "csv", [row | {"a": "good"} for row in ROWS])
    assert (
        f"{path}: the column a of true labels has good, none of which is on the scale 0, 1, 2: "
        "leave it out of --config.data.columns.truth"
    ) in message(path, columns=columns)
    known = read(write(tmp_path, "csv"), columns=columns)
    assert known.table["truth"].to_pylist() == ["2", "1", None]
    empty = read(write(tmp_path, "csv", [row | {"a": None} for row in ROWS]), columns=columns)
    assert empty.table["truth"].null_count == 3


def test_lines_that_are_no_rows_are_named_beside_labels_that_are_no_scale(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    rows = [f"q,caf{'é' if place % 2 else 'e'},{place % 2}" for place in range(8)]
    path.write_bytes("\n".join(["search,name,grade", *rows]).encode("cp1252"))
    said = message(path)
    assert "there are 0 (4): name the scale" in said
    assert "besides, 4 lines are not rows (4 not_utf8); the first is pairs.csv:3: convert" in said


def test_names_with_line_breaks_stay_on_one_line(tmp_path: Path) -> None:
    rows = [row | {"grade": "a\nb"} for row in ROWS]
    assert "there are 'a\\nb' (3)" in message(write(tmp_path, "csv", rows))
    rows = [row | {"a": "a\nb"} for row in ROWS]
    assert "has 'a\\nb', none" in message(write(tmp_path, "csv", rows), raters=["a"])


def test_labels_that_are_one_are_told_with_their_field() -> None:
    config = table.TableConfig(labels=("bad", "bad", "good"))
    with pytest.raises(UserError, match=r"^data\.table\.labels: label scale .*are different"):
        config.check()
    table.TableConfig(labels=("bad", "good")).check()
    table.TableConfig().check()


def test_grades_with_a_gap_are_not_guessed_at(tmp_path: Path) -> None:
    assert "0 (1)" in message(write(tmp_path, "csv", [row | {"grade": 3 * i} for i, row in
                                                      enumerate(ROWS)]))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"search,name,grade\n", "has no rows"),
        ("a.csv", b"search|name|grade\na|b|0\n", "separate the fields by commas"),
        ("a.csv", b"search,name,name\n", "'name' more than once"),
        ("a.csv", b"search,title,grade\na,b,0\n", "no column 'name'; it has search, title, grade"),
        ("a.csv", "search,name,grade\na,b,0\n".encode("utf-16"), "is UTF-16: convert"),
        ("a.csv", "search,name,grade\na,b,0\n".encode("utf-16-le"), "zero bytes, as UTF-16 has"),
        ("a.csv", b"search,name,gr\xe4de\n", "header of"),
        (
            "a.csv",
            b"search,name,grade\na;b;0\nc;d;1\n",
            "2 lines and no row (2 wrong_field_count); the first is a.csv:2: separate",
        ),
        ("a.tsv", b"search\tname\tgrade\na\t\xe4\t0\n", "a.tsv:2: convert it to UTF-8"),
        ("a.jsonl", b'[\n{"search": "a"},\n]\n', "3 lines and no row (3 unparsable_line)"),
        ("a.csv", b'search,name,grade\na,b,0\na,"b,0\n', "line 3: a quote opens"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("a.xlsx", b"", "ends in '.xlsx'"),
        ("a.jsonl", b'{"search": "a", "name": "b"}\n', "no column 'grade'; it has search, name"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in message(tmp_path / name)


def test_paths_that_are_not_a_table(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "none.csv")
    assert "empty folder" in message(tmp_path)
    write(tmp_path, "csv")
    write(tmp_path, "jsonl")
    assert "several kinds, .csv, .jsonl" in message(tmp_path)
    assert "data.columns.label is empty" in message(
        tmp_path / "pairs.csv", columns=COLUMNS | {"label": ""}
    )
    assert "data.columns.query and data.columns.title are empty" in message(
        tmp_path / "pairs.csv", columns={"label": "grade"}
    )
    wrong = dict.fromkeys(("query", "title", "label"), "x") | {"title": "y"}
    assert "has no columns 'x', 'y'; it has" in message(tmp_path / "pairs.csv", columns=wrong)


def test_attributes_and_features_that_are_missing_are_answered_with_their_flags(
    tmp_path: Path,
) -> None:
    (tmp_path / "pairs.csv").write_text("query,title,label,brand,price\na,b,1,c,2\n")
    names = {"query": "query", "title": "title", "label": "label"}
    request = Request(path=str(tmp_path / "pairs.csv"), columns=names, features=("pric", "size"))
    with pytest.raises(UserError) as caught:
        table.TableConfig(attributes=("brnd",)).read(request)
    assert str(caught.value).endswith(
        ": perhaps --config.data.table.attributes=brand --config.data.features=price,COLUMN"
    )
    with pytest.raises(UserError) as caught:  # one of them is both
        table.TableConfig(attributes=("brand", "pric")).read(request)
    assert str(caught.value).endswith(
        ": perhaps --config.data.table.attributes=brand,price --config.data.features=price,COLUMN"
    )


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as Parquet" in message(path)
