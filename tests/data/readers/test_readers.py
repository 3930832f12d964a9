"""The same rows through every format, as records and as columns, and files that are refused."""

import datetime
import gzip
import json
import uuid
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from sie_jax.data import readers
from sie_jax.data.readers import files, json_lines, parquet
from sie_jax.data.readers.records import Record, Wanted, cell
from sie_jax.data.readers.records import number as number_of
from sie_jax.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"query": "red shoes", "grade": 2, "rate": 1.0},
    {"query": "靴", "grade": None, "rate": 0.5},
    {"query": 'a "b"\nc', "grade": 10, "rate": None},
]
TEXTS = [
    {"query": "red shoes", "grade": "2", "rate": "1"},
    {"query": "靴", "grade": None, "rate": "0.5"},
    {"query": 'a "b"\nc', "grade": "10", "rate": None},
]
KINDS = ["csv", "tsv", "jsonl", "ndjson", "csv.gz", "jsonl.gz", "tsv.zst", "ndjson.zst", "parquet"]
WANTED = Wanted(("query", "grade", "rate"), "look again")


def quoted(value: str | None) -> str:
    return '"' + (value or "").replace('"', '""') + '"'


def packed(content: bytes, suffix: str) -> bytes:
    """In two members, as some programs write them, where the suffix is of a compressed file."""
    if suffix == ".gz":
        return b"".join(gzip.compress(part, mtime=0) for part in (content[:9], content[9:]))
    if suffix == ".zst":
        parts = (content[:9], content[9:])
        return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in parts)
    return content


def write(folder: Path, kind: str) -> epath.Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
        return epath.Path(path)
    if "json" in kind:
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        mark = "\t" if "tsv" in kind else ","
        lines = [list(TEXTS[0]), *(map(quoted, row.values()) for row in TEXTS)]
        text = "".join(mark.join(line) + "\n" for line in lines)
    path.write_bytes(packed(text.encode(), path.suffix))
    return epath.Path(path)


def told(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    found = list(readers.records(file, WANTED))
    cells = [{name: text or None for name, text in record.cells.items()} for record in found]
    assert cells == TEXTS
    assert readers.column_names([file]) == ["query", "grade", "rate"]
    assert files.find(str(tmp_path)) == [file]


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_the_records_cells(tmp_path: Path, kind: str, rows: int) -> None:
    file = write(tmp_path, kind)
    pieces = list(readers.columns(file, WANTED, rows))
    assert max(piece.num_rows for piece, _ in pieces) <= rows
    assert not any(broken for _, broken in pieces)
    found = [row for piece, _ in pieces for row in piece.to_pylist()]
    if kind == "parquet":  # with its types
        assert found == ROWS
    else:
        assert found == [record.cells for record in readers.records(file, WANTED)]


def test_records_without_cells_stand_beside_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("query,grade\na,1\nb\nc,2\n")
    ((table, broken),) = readers.columns(epath.Path(path), Wanted(("grade",), ""), 9)
    assert table.to_pydict() == {"grade": ["1", "2"]}
    assert broken == [Record(3, {}, "wrong_field_count", "b")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_is_not_compressed_as_its_name_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(b"query,grade\na,1\n")
    assert f"{path} cannot be read (" in told(lambda: readers.column_names([epath.Path(path)]))
    path.write_bytes(packed(b"query,grade\na,1\n", suffix) + b"b,2\n")
    said = told(lambda: list(readers.records(epath.Path(path), Wanted(("query",), ""))))
    assert said.startswith(f"{path} cannot be read (")


def test_row_groups_know_their_place(tmp_path: Path) -> None:
    first = write(tmp_path, "parquet")
    second = first.parent / "second.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), second)
    groups = parquet.row_groups([first, second], WANTED)
    assert [tuple(group)[1:] for group in groups] == [(0, 2, 0, 0), (1, 1, 2, 2), (0, 1, 0, 3)]
    (record,) = parquet.read(first, WANTED, groups[1])
    assert record == Record(3, TEXTS[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    wanted = Wanted(("query", "title"), "look again")
    message = f"{file} has no column 'title'; it has query, grade, rate: look again"
    assert told(lambda: list(readers.records(file, wanted))) == message
    assert told(lambda: list(readers.columns(file, wanted, 9))) == message
    several = Wanted(("title", "query", "label", "title"), "look again")
    message = f"{file} has no columns 'title', 'label'; it has query, grade, rate: look again"
    assert told(lambda: list(readers.records(file, several))) == message


def test_a_missing_column_with_a_flag_is_answered_with_the_flag(tmp_path: Path) -> None:
    """With the column whose name is near; a flag of several columns is given as a whole."""
    flags = {"--title": ("title",), "--scores": ("grad", "rate")}
    for columns, fix in (
        (("title",), "name it with --title=COLUMN"),
        (("grad", "rate"), "perhaps --scores=grade,rate"),
        (("title", "grad"), "perhaps --title=COLUMN --scores=grade,rate"),
        (("title", "cost"), "name it with --title=COLUMN; look again"),
        (("cost",), "look again"),
    ):
        wanted = Wanted(columns, "look again", flags=flags)
        said = told(partial(wanted.check, "a", ["grade", "rate"]))
        assert said.endswith(f"; it has grade, rate: {fix}")


def test_json_objects_may_leave_out_an_optional_column(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl")
    wanted = Wanted(("query", "title"), "look again", optional=("title",))
    found = [record.cells for record in json_lines.read(file, wanted)]
    assert found == [{"query": row["query"], "title": None} for row in ROWS]


@pytest.mark.parametrize("kind", KINDS)
def test_cells_can_be_cast_to_the_types_of_their_columns(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    types = readers.types(file)
    texts = "json" not in kind and kind != "parquet"
    grade, rate = (pa.string(), pa.string()) if texts else (pa.int64(), pa.float64())
    assert types == {"query": pa.string(), "grade": grade, "rate": rate}
    cells = [record.cells["rate"] for record in readers.records(file, WANTED)]
    values = pa.array(cells, pa.string()).cast(rate).to_pylist()
    assert [value or None for value in values] == (
        ["1", "0.5", None] if texts else [1.0, 0.5, None]
    )


def test_what_is_no_number_is_text_and_bytes_need_not_be(tmp_path: Path) -> None:
    values = ["1, true", "2.5, false", "null, null"]
    lines = [
        f'{{"number": {number}, "sold": {sold}, "mixed": {mixed}, "big": {2**63}, "list": [1]}}'
        for (number, sold), mixed in zip(
            (v.split(", ") for v in values), ("1", '"1"', "2"), strict=True
        )
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert readers.types(epath.Path(tmp_path / "rows.jsonl")) == {
        "number": pa.float64(),
        "sold": pa.bool_(),
        **dict.fromkeys(("mixed", "big", "list"), pa.string()),
    }
    table = pa.table(
        {
            "half": pa.array([1.5], pa.float32()),
            "day": pa.array([datetime.date(2024, 5, 6)]),
            "shared": pa.array([3], pa.int8()).dictionary_encode(),
            "image": pa.array([b"\xff"]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    types = {"half": pa.float32(), "day": pa.string(), "shared": pa.int8(), "image": pa.binary()}
    assert readers.types(epath.Path(tmp_path / "rows.parquet")) == types


def test_the_keys_of_json_lines_are_those_of_all_files(tmp_path: Path) -> None:
    lines = ['{"a": 1}', "[", '{"b": 2, "a": 3}']
    for number, line in enumerate(lines):
        (tmp_path / f"{number}.jsonl").write_text(line + "\n")
    parts = files.find(str(tmp_path))
    assert readers.column_names(parts) == ["a", "b"]
    assert readers.column_names(parts, most_lines=2) == ["a"]


def test_paths_without_files_of_one_kind(tmp_path: Path) -> None:
    assert "'' does not exist: give a file" in told(lambda: files.find(""))
    assert "is an empty folder" in told(lambda: files.find(str(tmp_path)))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.csv").touch()
    (tmp_path / "_folder").mkdir()
    assert "is an empty folder" in told(lambda: files.find(str(tmp_path)))
    for name in ("a.csv", "b.csv.gz"):  # one kind
        (tmp_path / name).touch()
    assert [file.name for file in files.find(str(tmp_path))] == ["a.csv", "b.csv.gz"]
    assert "b.csv.gz ends in '.csv.gz': give a file that ends in .csv" in told(
        lambda: files.find(str(tmp_path), [".csv"])
    )
    (tmp_path / "locale=us").mkdir()
    message = told(lambda: files.find(str(tmp_path)))
    assert "holds the folder locale=us, whose files would not be read: move them up" in message
    (tmp_path / "locale=us").rmdir()
    (tmp_path / "c.jsonl").touch()
    message = told(lambda: files.find(str(tmp_path)))
    assert "holds files of several kinds, .csv, .jsonl: keep one kind" in message


@pytest.mark.parametrize("kind", ["csv.gz", "ndjson.zst", "parquet"])
def test_a_file_that_is_cut_off(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file} cannot be read" in told(lambda: list(readers.records(file, WANTED)))


def test_a_file_that_is_not_packed(tmp_path: Path) -> None:
    file = epath.Path(tmp_path / "rows.csv.gz")
    file.write_text("query,grade,rate\n")
    assert f"{file} cannot be read" in told(lambda: list(readers.records(file, WANTED)))


def test_bytes_that_are_not_utf8_have_no_column(tmp_path: Path) -> None:
    path = epath.Path(tmp_path / "rows.parquet")
    names = pa.array([b"B\xfccher"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"query": names}), path)
    wanted = Wanted(("query",), "")
    (record,) = readers.records(path, wanted)
    assert (record.line, record.cells, record.reason) == (1, {}, "not_utf8")
    assert f"{path} cannot be read as Parquet" in told(
        lambda: list(readers.columns(path, wanted, 9))
    )


DAY, NOON = datetime.date(2024, 5, 6), datetime.datetime(2024, 5, 6, 7, 8)
STORED: list[tuple[Any, pa.DataType, str | None]] = [
    ("ü", pa.large_string(), "ü"),
    ("ü", pa.string_view(), "ü"),
    ("ü", pa.dictionary(pa.int8(), pa.large_string()), "ü"),
    (2, pa.dictionary(pa.int8(), pa.int64()), "2"),
    (2, pa.uint8(), "2"),
    (2.0, pa.float64(), "2"),
    (2.0, pa.float32(), "2"),
    (12.99, pa.float32(), "12.99"),
    (0.5, pa.float16(), "0.5"),
    (float("nan"), pa.float32(), None),
    (float("nan"), pa.float64(), None),
    (Decimal("2"), pa.decimal128(3, 0), "2"),
    (Decimal("2.00"), pa.decimal256(40, 2), "2"),
    (Decimal("12.50"), pa.decimal128(8, 2), "12.50"),
    (Decimal("0.0000001"), pa.decimal128(9, 7), "0.0000001"),
    (True, pa.bool_(), "true"),
    (DAY, pa.date32(), "2024-05-06"),
    (DAY, pa.date64(), "2024-05-06"),
    (NOON, pa.timestamp("s"), "2024-05-06 07:08:00"),
    (NOON, pa.timestamp("us"), "2024-05-06 07:08:00"),
    (NOON, pa.timestamp("ns"), "2024-05-06 07:08:00"),
    (NOON.replace(microsecond=120000), pa.timestamp("ns"), "2024-05-06 07:08:00.12"),
    (NOON, pa.timestamp("ms", "UTC"), "2024-05-06 07:08:00Z"),
    (10**18, pa.timestamp("ns"), "2001-09-09 01:46:40"),
    (10**18 + 1, pa.timestamp("ns"), "2001-09-09 01:46:40.000000001"),
    (datetime.time(7, 8, 9), pa.time64("us"), "07:08:09"),
    ([1.5], pa.list_(pa.float64()), "[1.5]"),
    ({"a": "ü"}, pa.struct({"a": pa.string()}), '{"a": "ü"}'),
    (b"ab", pa.binary(), "ab"),
    (uuid.UUID(int=7), pa.uuid(), str(uuid.UUID(int=7))),
    (None, pa.null(), None),
]


@pytest.mark.parametrize(("value", "kind", "text"), STORED, ids=lambda value: str(value)[:30])
def test_a_cell_is_its_value_however_it_is_stored(
    tmp_path: Path, value: Any, kind: pa.DataType, text: str | None
) -> None:
    if kind == pa.float16():
        value = np.float16(value)
    if kind == pa.uuid():
        value = value.bytes
    is_dictionary = pa.types.is_dictionary(kind)
    column = pa.array([value, None], kind.value_type if is_dictionary else kind)
    column = column.dictionary_encode() if is_dictionary else column
    path = epath.Path(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"a": column}), path)
    cells = [record.cells["a"] for record in readers.records(path, Wanted(("a",), ""))]
    assert cells == [text, None]


def test_json_says_missing_by_null_and_nan(tmp_path: Path) -> None:
    path = epath.Path(tmp_path / "rows.jsonl")
    path.write_text('{"a": NaN}\n{"a": null}\n{}\n{"a": "NaN"}\n{"a": 2.0}\n{"a": [NaN]}\n')
    cells = [record.cells["a"] for record in readers.records(path, Wanted(("a",), ""))]
    assert cells == [None, None, None, "NaN", "2", "[NaN]"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["1"])] * 3, ["a", "b", "a"])
    pq.write_table(twice, tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("a,b,a\n1,2,3\n")
    for name in ("rows.parquet", "rows.csv"):
        path = epath.Path(tmp_path / name)
        message = f"{path} has the column 'a' more than once: rename one"
        for call in (readers.records, lambda *given: readers.columns(*given, 9)):
            assert (
                told(lambda call=call, path=path: list(call(path, Wanted(("b",), "")))) == message
            )
        assert told(lambda path=path: readers.column_names([path])) == message
    path = epath.Path(tmp_path / "rows.jsonl")
    path.write_text('{"a": 1, "b": 2, "a": 3}\n{"a": 1, "b": {"c": 1, "c": 2}}\n{"a": 1, "b": 2}\n')
    found = [record.reason for record in readers.records(path, Wanted(("b",), ""))]
    assert found == ["unparsable_line", "unparsable_line", ""]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7, 7.0, Decimal("7.00"), "7", " +7 ", "7.", "0.7e1", "700E-2"], 7.0),
        ([-0.125, Decimal("-0.1250"), "-.125", "-125e-3"], -0.125),
        ([0.1, "0.1", Decimal("0.1")], 0.1),
        ([Decimal("1E+3"), 1000], 1000.0),
        ([True, "true", "TRUE", 1], 1.0),
        ([False, "False", 0, -0.0], 0.0),
        ([None, "", " \t", float("nan"), "NaN", "nan"], None),
    ],
    ids=str,
)
def test_cells_of_one_number_are_that_number(values: list[Any], expected: float | None) -> None:
    assert [number_of(cell(value)) for value in values] == [expected] * len(values)


@pytest.mark.parametrize(
    "value",
    ["n/a", "abc", "1,5", "1 000", "1_000", "$3", "3 kg", "0x10", "٣", "--1", "e3", ".", "yes",
     "inf", "-Infinity", float("inf"), "1e999", 10**400, [1], {"a": 1}],
    ids=lambda value: str(value)[:10],
)  # fmt: skip
def test_other_cells_are_no_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a finite number"):
        number_of(cell(value))
