"""Changes of a file at random: its bytes, lines, cells, JSON values, tensors, columns or its place.

All are drawn from a `random.Random`, so that a seed gives the same change again.
"""

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 7, 1e308, -1e308, 2**31, 2**63, 10**400),
    *(float("nan"), float("inf"), -float("inf"), 1e-320, 10**6, 10**9, -(2**63)),
    *("", " ", "x", "1", "-1", "NaN", "inf", "true", "é", "💡", "\x00", "\u2028", "a\nb", '"', "'"),
    *("=1+1", "../x", "a/b", "[PAD]", "[UNK]", "x" * 10_000, "\ud800", "run:linear", "query"),
    *([], {}, [[]], [0], [None], ["x"], {"a": 1}, {"0": "a"}, {"content": "x"}, [1, "x", None]),
)
BYTES = (
    b"\x00",
    b"\xff",
    b'"',
    b"\r",
    b"\n",
    b",",
    b"\t",
    b"\xef\xbb\xbf",
    b"{",
    b"]",
    b"\\",
    b"'",
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig")
DEPTH = 100_000
LARGEST = 10_000_000  # bytes of a file whose lines are repeated: a damage, not a load
Change = Callable[[random.Random, bytes], bytes]


def odd(draw: random.Random, value: Any) -> Any:
    """Something odd in a value's place, half of the time of its type."""
    alike = [one for one in ODD if type(one) is type(value)]
    return draw.choice(alike if alike and draw.random() < 0.5 else ODD)


def file(draw: random.Random, path: Path) -> str:
    """Changes a file once or a few times, and says how."""
    if draw.random() < 0.06:
        return _place(draw, path)
    changes = [draw.choice(_of(path.suffix)) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    content = path.read_bytes()
    for change in changes:
        try:
            content = change(draw, content)
        except (ValueError, LookupError, OSError, pa.ArrowException, RecursionError):
            content = damaged(draw, content)  # an earlier change left nothing to be read as such
    path.write_bytes(content)
    return f"{path.name}: {', '.join(change.__name__ for change in changes)}"


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Flips, cuts, inserts or repeats bytes."""
    at = draw.randrange(len(content) + 1)
    end = min(at + draw.choice((1, 2, 8, 100)), len(content))
    flipped = bytes(byte ^ 1 << draw.randrange(8) for byte in content[at:end])
    return draw.choice(
        (
            content[:at],
            content[at:],
            content[:at] + flipped + content[end:],
            content[:at] + content[end:],
            content[:end] + content[at:],
            content[:at] + draw.choice(BYTES) + content[at:],
            content[:at] + draw.randbytes(draw.choice((1, 4, 64))) + content[end:],
            b"",
        )
    )


def encoded(draw: random.Random, content: bytes) -> bytes:
    """The text in another encoding."""
    return content.decode().encode(draw.choice(ENCODINGS), "replace")


def lines(draw: random.Random, content: bytes) -> bytes:
    """Lines repeated, left out, exchanged, joined, or ended otherwise."""
    found = content.split(b"\n")
    one, other = draw.randrange(len(found)), draw.randrange(len(found))
    kind = draw.randrange(6)
    if kind == 0:
        found.insert(other, found[one])
    elif kind == 1:
        del found[one]
    elif kind == 2:
        found[one], found[other] = found[other], found[one]
    elif kind == 3:
        found[one] = b""
    elif kind == 4:
        times = draw.choice((2, 50))
        found = found * (times if len(content) * times <= LARGEST else 1)
    return draw.choice((b"\r\n", b"\r", b" ")).join(found) if kind == 5 else b"\n".join(found)


def cells(draw: random.Random, content: bytes) -> bytes:
    """Cells of a delimited file exchanged, left out, added, or made odd; the header's too."""
    found = content.split(b"\n")
    mark = b"\t" if b"\t" in found[0] else b","
    at = draw.randrange(len(found))
    row = found[at].split(mark)
    one, other = draw.randrange(len(row)), draw.randrange(len(row))
    kind = draw.randrange(5)
    if kind == 0:
        row[one], row[other] = row[other], row[one]
    elif kind == 1:
        del row[one]
    elif kind == 2:
        row.insert(one, row[other])
    else:
        row[one] = str(draw.choice(ODD)).encode("utf-8", "surrogateescape" if kind else "replace")
    return b"\n".join([*found[:at], mark.join(row), *found[at + 1 :]])


def values(draw: random.Random, content: bytes) -> bytes:
    """A value of a JSON text made odd, left out, repeated, or put under another name."""
    value = json.loads(content)
    if draw.random() < 0.03:
        return draw.choice((b"[" * DEPTH, b'{"a":' * DEPTH, b"null", b"[]", b"{}", b"1" * 5000))
    return json.dumps(_changed(draw, value)).encode()


def json_lines(draw: random.Random, content: bytes) -> bytes:
    """The value of one line made odd, as `values` does."""
    found = content.split(b"\n")
    at = draw.randrange(len(found))
    return b"\n".join([*found[:at], values(draw, found[at]), *found[at + 1 :]])


def tensors(draw: random.Random, content: bytes) -> bytes:
    """The header of a safetensors file made odd, as `values` does; the tensors stay."""
    size = int.from_bytes(content[:8], "little")
    header = values(draw, content[8 : 8 + size])
    size = draw.choice((len(header),) * 9 + (0, 2**40, len(header) - 1))
    return size.to_bytes(8, "little") + header + content[8 + size :]


def columns(draw: random.Random, content: bytes) -> bytes:
    """Columns of a Parquet file of another type or name, left out or repeated; rows likewise."""
    table = pq.read_table(io.BytesIO(content))
    at = draw.randrange(table.num_columns)
    name, kind = table.column_names[at], draw.randrange(7)
    if kind == 0:
        table = table.remove_column(at)
    elif kind == 1:
        names = list(table.column_names)
        names[at] = draw.choice(("x", "", *names))
        table = table.rename_columns(names)
    elif kind == 2:
        table = table.slice(0, draw.randrange(table.num_rows))
    elif kind == 3:
        table = pa.concat_tables([table] * 2)
    elif kind == 4:
        table = table.replace_schema_metadata(
            {"fields": json.dumps(draw.choice(({}, [], {"title": 1}, {"title": {}, "text": {}})))}
        )
    else:
        odd = [draw.choice(ODD) for _ in range(4)]
        like = [one for one in odd if type(one) is type(odd[0]) and _is_storable(one)] or [None]
        cells = [draw.choice((None, *like)) for _ in range(table.num_rows)]
        table = table.set_column(at, name, pa.array(cells))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=draw.choice((3, 1000)))
    return sink.getvalue()


def _is_storable(value: Any) -> bool:
    try:
        pq.write_table(pa.table({"a": [value]}), io.BytesIO())
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return True


def _of(suffix: str) -> tuple[Change, ...]:
    """The changes of a file with such an ending, the fitting ones twice."""
    fitting: dict[str, tuple[Change, ...]] = {
        ".csv": (lines, cells, cells, encoded),
        ".tsv": (lines, cells, cells, encoded),
        ".jsonl": (lines, json_lines, json_lines, encoded),
        ".json": (values, values, values, values, lines, encoded),
        ".safetensors": (tensors,),
        ".parquet": (columns, columns),
        ".py": (lines, encoded),
    }
    return (*fitting.get(suffix, (lines,)) * 2, damaged)


def _changed(draw: random.Random, value: Any) -> Any:
    """The value with something odd at some depth."""
    inside = isinstance(value, dict | list) and len(value) > 0
    if not inside or draw.random() < 0.15:
        return odd(draw, value)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        kept = list(value)
        kind = draw.randrange(6)
        if kind == 0:
            del kept[at]
        elif kind == 1:
            kept.insert(at, kept[-1])
        else:
            kept[at] = _changed(draw, kept[at])
        return kept
    name = draw.choice(list(value))
    kind = draw.randrange(6)
    rest = {key: one for key, one in value.items() if key != name}
    if kind == 0:
        return rest
    if kind == 1:
        return rest | {draw.choice(("x", "", name.upper(), name + "\n", "0")): value[name]}
    return {**value, name: _changed(draw, value[name])}


def _place(draw: random.Random, path: Path) -> str:
    """Something else in the file's place: nothing, a folder, a pipe, a link, another file."""
    others = sorted(one for one in path.parent.iterdir() if one.is_file() and one != path)
    kind = draw.randrange(6)
    if kind == 5 and others:
        shutil.copyfile(draw.choice(others), path)
        return f"{path.name} is another file"
    if kind == 4:
        path.rename(path.with_name(f"{path.name} (copy)"))
        return f"{path.name} is renamed"
    path.unlink()
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to(draw.choice(("nowhere", path.name)))
    kinds = ("missing", "a folder", "a named pipe", "a link to nowhere", "", "missing")
    return f"{path.name} is {kinds[kind]}"
