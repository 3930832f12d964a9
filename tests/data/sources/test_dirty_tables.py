"""Whatever a table holds: every record is a row or is rejected, at a place where it is found."""

import csv
import datetime
import functools
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_jax.data import cleaning, readers
from sie_jax.data.readers.records import Record, Wanted
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.tables.spool import hash_partitions

NAMES = ("query", "title", "label", "query_id")
COLUMNS = {name: name for name in NAMES}
few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "hash_partitions", functools.partial(hash_partitions, parts=2))


TEXT = st.text('ab0 1"\t,\n\r\\<&;é\x00\u0301\u2028', max_size=6)
SOUND = st.builds(
    lambda query, label: (f"q{query}", "title", str(label), ""),
    st.integers(0, 9),
    st.integers(0, 1),
)
ROWS = st.lists(SOUND | SOUND | st.lists(TEXT, max_size=5), max_size=8)
BYTES = st.sampled_from([b"", b"\xff", b'"', b"\r", b"\n", b"\xef\xbb\xbf"])


@st.composite
def delimited(draw: st.DrawFn, mark: str) -> bytes:
    """Rows that are quoted or not, and bytes put between them."""
    content = mark.join(NAMES).encode() + b"\n"
    for row in draw(ROWS):
        if draw(st.booleans()):
            line = io.StringIO()
            csv.writer(line, delimiter=mark, lineterminator="\n").writerow(row)
            content += line.getvalue().encode()
        else:
            content += mark.join(row).encode() + b"\n"
        content += draw(st.just(b"") | BYTES)
    return content


VALUES = st.recursive(
    TEXT | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    content = b""
    for row in draw(ROWS):
        cells = dict(zip(NAMES, row, strict=False))
        changed = draw(st.just({}) | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2))
        line = json.dumps(cells | changed, ensure_ascii=draw(st.booleans())).encode()
        line = draw(st.just(line) | st.just(line[:-3]) | st.just(json.dumps(row).encode()))
        content += line + draw(st.just(b"") | BYTES) + b"\n"
    return content


TIME = datetime.datetime(2024, 5, 6, 7, 8)
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), st.binary(max_size=4)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(9, 2), st.sampled_from([Decimal("1.00"), Decimal("12.50"), Decimal("-0.07")])),
    (pa.timestamp("ns"), st.integers(-(2**63), 2**63 - 1)),
    (pa.timestamp("s", "Europe/Rome"), st.integers(-(10**14), 10**14)),
    (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.list_(pa.float64()), st.lists(st.floats(), max_size=2)),
    (pa.struct({"a": pa.timestamp("us")}), st.fixed_dictionaries({"a": st.just(TIME)})),
    (pa.null(), st.none()),
]


@st.composite
def parquet(draw: st.DrawFn) -> bytes:
    """Sound rows, and columns of any type in the place of some."""
    rows = draw(st.lists(SOUND, max_size=8))
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in range(len(NAMES))]
    for at in draw(st.sets(st.integers(0, 3), max_size=2)):
        kind, values = draw(st.sampled_from(KINDS))
        cells = draw(st.lists(st.none() | values, min_size=len(rows), max_size=len(rows)))
        columns[at] = pa.array(cells, kind)
        if kind == pa.binary() and draw(st.booleans()):
            columns[at] = columns[at].view(pa.string())
        if pa.types.is_large_string(kind) and draw(st.booleans()):
            columns[at] = columns[at].dictionary_encode()
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, list(NAMES)), sink, row_group_size=3)
    return sink.getvalue()


def told(call: Callable[[], Any]) -> Any:
    """What the call gives; None where it refuses in one line."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return None


def check(path: Path, content: bytes) -> list[Record]:
    """What holds of any table; gives its records."""
    path.write_bytes(content)
    found = told(lambda: list(readers.records(epath.Path(path), Wanted(NAMES, "look"))))
    source = told(lambda: table.read(str(path), columns=COLUMNS, labels=("0", "1")))
    if found is None or source is None:
        assert source is None
        return []
    places = [record.line for record in found]
    assert places == sorted(set(places))
    assert source.table["example_id"].to_pylist() == [
        str(at) for at, record in enumerate(found) if not record.reason
    ]
    assert source.unreadable.select(["example_id", "text", "reason"]).to_pylist() == [
        {"example_id": f"{path.name}:{one.line}", "text": one.text, "reason": one.reason}
        for one in found
        if one.reason
    ]
    cleaned = told(
        lambda: cleaning.clean(
            source.table, source.scale, max_query_characters=9, max_title_characters=9
        )
    )
    if cleaned is not None:
        ids = cleaned.kept["example_id"].to_pylist() + cleaned.rejected["example_id"].to_pylist()
        assert sorted(ids, key=int) == source.table["example_id"].to_pylist()
    return found


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_delimited_files(tmp_path: Path, kind: str) -> None:
    @few
    @given(delimited("," if kind == "csv" else "\t"))
    def holds(content: bytes) -> None:
        if not (found := check(tmp_path / f"pairs.{kind}", content)):
            return
        lines = content.decode("utf-8", "replace").split("\n")
        ends = [record.line for record in found[1:]] + [len(lines) + 1]
        covered = {1}
        for record, end in zip(found, ends, strict=True):
            own = lines[record.line - 1 : end - 1]
            while len(own) > 1 and not own[-1].strip("\r"):
                own.pop()
            # a record of several lines says so: none is swallowed
            texts = (
                [record.text] if record.reason else [cell or "" for cell in record.cells.values()]
            )
            assert len(own) == 1 or sum(text.count("\n") for text in texts) >= len(own) - 1
            assert any(text[:1] in own[0] for text in texts)
            covered |= set(range(record.line, end))
        assert all(not lines[at - 1].strip("\r") for at in {*range(1, len(lines) + 1)} - covered)

    holds()


def test_json_lines(tmp_path: Path) -> None:
    @few
    @given(json_lines())
    def holds(content: bytes) -> None:
        found = check(tmp_path / "pairs.jsonl", content)
        lines = content.decode("utf-8", "replace").split("\n")
        if found:
            assert [one.line for one in found] == [
                at for at, line in enumerate(lines, 1) if line.strip()
            ]
        for record in found:
            assert "NaN" not in (record.cells.get(name) for name in NAMES)

    holds()


def test_parquet(tmp_path: Path) -> None:
    @few
    @given(parquet())
    def holds(content: bytes) -> None:
        found = check(tmp_path / "pairs.parquet", content)
        for record in found:
            assert not {"nan", "NaN", "NaT"} & {record.cells.get(name) for name in NAMES}
        if found:
            rows = pq.read_metadata(io.BytesIO(content)).num_rows
            assert [record.line for record in found] == list(range(1, rows + 1))

    holds()
