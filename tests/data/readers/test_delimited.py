"""Records of delimited files: quoting, records without cells, and files that cannot be read."""

import gzip
import itertools
from pathlib import Path

import pytest
from etils import epath

from sie_jax.data.readers import delimited
from sie_jax.data.readers.records import Record, rejected
from sie_jax.errors import UserError


def records(path: Path, content: bytes, delimiter: str = "\t") -> tuple[list[str], list[Record]]:
    path.write_bytes(content)
    header, found = delimited.read(epath.Path(path), delimiter=delimiter)
    return header, list(found)


def message(path: Path, content: bytes, delimiter: str = "\t") -> str:
    with pytest.raises(UserError) as caught:
        records(path, content, delimiter)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_fields_are_quoted_as_in_rfc_4180(tmp_path: Path) -> None:
    content = b'a b\tc\n1\t"36"" blue\tdesk\nwide"\n\n36" desk\t"x"\r\n'
    header, found = records(tmp_path / "x.csv", content)
    assert header == ["a b", "c"]
    assert found == [
        Record(2, {"a b": "1", "c": '36" blue\tdesk\nwide'}),
        Record(5, {"a b": '36" desk', "c": "x"}),
    ]


def test_a_record_without_cells_has_its_line_text_and_reason(tmp_path: Path) -> None:
    content = b'a,c\n1\n2,\xff\n"3"x,4\n5,6,7\n8,9\n'
    path = tmp_path / "x.csv"
    _, found = records(path, b"\xef\xbb\xbf" + content, ",")
    assert found == [
        Record(2, {}, "wrong_field_count", "1"),
        Record(3, {}, "not_utf8", "2,\ufffd"),
        Record(4, {}, "unparsable_line", '"3"x,4'),
        Record(5, {}, "wrong_field_count", "5,6,7"),
        Record(6, {"a": "8", "c": "9"}),
    ]
    told = {"example_id": "x.csv:3", "text": "2,\ufffd", "reason": "not_utf8"}
    assert rejected(epath.Path(path), found[1]) == told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: give"),
        (b"a\tb\ta\n", "the column 'a' more than once"),
        (b"a,b\n1,2\n", "is a single field, 'a,b', with ',' in it: separate the fields by tabs"),
        (b"a\tb\xff\n", "is not UTF-8"),
        ("a\tb\n".encode("utf-16"), "is UTF-16: convert"),
        (b'"a"b\tc\n', "cannot be read"),
        (b"\n\n", "is empty: give"),
        (b"a\tb\r1\t2\r", "ends lines with CR alone: convert its line ends to LF"),
        (
            gzip.compress(b"a\tb\n", mtime=0),
            "is packed by gzip, which its name does not say: unpack",
        ),
        (b"PK\x03\x04\x14\n", "is a zip archive or a spreadsheet"),
        (b"PAR1\x15\x04", "is a Parquet file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in message(tmp_path / "x.csv", content)


def test_a_quote_that_does_not_close(tmp_path: Path) -> None:
    said = message(tmp_path / "x.csv", b'a,b\n1,2\n3,"4\n5,6\n', ",")
    assert "line 3: a quote opens that does not close" in said


def test_blank_lines_before_the_header_are_left_out(tmp_path: Path) -> None:
    header, found = records(tmp_path / "x.csv", b"\r\n\na\tb\n\n1\t2\n")
    assert header == ["a", "b"]
    assert found == [Record(5, {"a": "1", "b": "2"})]


def test_semicolons_where_the_header_has_no_comma(tmp_path: Path) -> None:
    """As spreadsheets write, with a byte order mark, where numbers have a decimal comma."""
    content = '\ufeff"query";title;rate\r\n"a; b";"c ""d""";0,5\r\ne;f\r\n'.encode()
    header, found = records(tmp_path / "x.csv", content, ",")
    assert header == ["query", "title", "rate"]
    assert found == [
        Record(2, {"query": "a; b", "title": 'c "d"', "rate": "0,5"}),
        Record(3, {}, "wrong_field_count", "e;f"),
    ]
    said = message(tmp_path / "x.csv", b"query;title,label\n", "\t")
    assert "separate the fields by tabs" in said


def titles(path: Path, lines: list[str], delimiter: str = "\t") -> list[tuple[int, str]]:
    """Where each record of query, title and label is, with its title, or its reason."""
    _, found = records(path, "\n".join(["query\ttitle\tlabel", *lines]).encode(), delimiter)
    return [(one.line, one.cells.get("title") or one.reason) for one in found]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # quotes that join lines each of which is a record
        (['q\t"Oak\t2', "q\tPine\t1", 'q\tBed 55"\t2'], ['2 "Oak', "3 Pine", '4 Bed 55"']),
        (['q\t"Oak\t2', "", 'q\tBed 55"\t2', "q\tx\t1"], ['2 "Oak', '4 Bed 55"', "5 x"]),
        # quotes that do not close, that text follows, or that take in a tab
        (['q\t"Oak\t2', "q\tPine\t1"], ['2 "Oak', "3 Pine"]),
        (['q\t"Oak" table\t2', "q\tPine\t1"], ['2 "Oak" table', "3 Pine"]),
        (['"q\tOak"\t2', 'q\t"Pine\t"1'], ['2 Oak"', '3 "Pine']),
        (['q\t"Oak', "q\tPine\t1"], ["2 wrong_field_count", "3 Pine"]),
        (['q\t"Oak" table', 'q\t"x"y\t1\t1'], ["2 unparsable_line", "3 unparsable_line"]),
        # fields that are quoted consistently
        (['q\t"Oak"\t2', '"q"\t"a ""b"""\t"1"'], ["2 Oak", '3 a "b"']),
        (['q\t"Oak\ntable"\t2', 'q\t"a\tb"\t1'], ["2 Oak\ntable", "4 a\tb"]),
        (['q\t"Oak\n\ttable\n"\t2', "q\tPine\t1"], ["2 Oak\n\ttable\n", "5 Pine"]),
        (['q\tOak\t"2\n3"', "q\tPine\t1"], ["2 Oak", "4 Pine"]),
    ],
)
def test_quotes_between_tabs_lose_no_line(
    tmp_path: Path, lines: list[str], expected: list[str]
) -> None:
    found = titles(tmp_path / "x.tsv", lines)
    assert [f"{line} {title}" for line, title in found] == expected


def test_quotes_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    content = b'a\tb\tc\nq\t"Oak\t2\nno tabs\nq\tBed 55"\t2\n'
    said = message(tmp_path / "x.tsv", content)
    assert "line 2: a quote opens that closes in line 4" in said


def test_a_cell_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST_CELL", 100)
    for mark, delimiter in itertools.product((b"", b'"'), "\t,"):
        cell = mark + b"x" * 200 + mark
        content = b"a,b\n1,2\n3," + cell + b"\n"
        said = message(tmp_path / "x.csv", content.replace(b",", delimiter.encode()), delimiter)
        assert "line 3: a cell has more than 100 characters: shorten it" in said
    said = message(tmp_path / "x.csv", b'a,b\n1,"' + b"x\n" * 200, ",")
    assert "line 2: a quote opens that does not close (field larger than" in said
