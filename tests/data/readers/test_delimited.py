"""Records of delimited files: quoting, records without cells, and files that cannot be read."""

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
        (b'a\tb\n1\t2\n3\t"4\n', "line 3: a quote opens that does not close"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in message(tmp_path / "x.csv", content)


def test_a_cell_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST_CELL", 100)
    content = b'a\tb\n1\t"' + b"x" * 200 + b'"\n'
    said = message(tmp_path / "x.csv", content)
    assert "line 2: a quote opens that does not close (field larger than" in said
