"""Reading a table of which every twentieth row is broken: what is counted, and the memory it takes.

    python benchmarks/table.py

Tables of 20,000 and of 200,000 judged pairs as CSV, TSV, JSON lines, Parquet, and a folder of CSV
parts, with label names, raters, an attribute and splits. One row of every query is broken, in turn
in every way that its kind of file can be. Each table goes through the stage `prepare` in a
process of its own; then rows read = kept + rejected must hold, and the rows in
rejected.parquet must be those that were broken, each with the reason planted. Leaves
benchmarks/results/table.json, and ends with 1 where a row or a count is another.

Peak memory is of the whole process: `peak_mebibytes` resident, pages of mapped files included,
which the system takes back when it needs them; `peak_anonymous_mebibytes` without those, looked at
every few milliseconds. Linux only.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "table.json"
SIZES = (20_000, 200_000)
LABELS = ("bad", "fair", "good")
COLUMNS = ("query", "title", "label", "split", "brand", "rating_1", "rating_2")
ROWS_OF_A_QUERY = 20
BROKEN_AT = 7  # the broken row of a query
PARTS = 5  # files of the folder
WORDS = ("red", "blue", "green", "garden", "kitchen", "lamp", "shoe", "chair", "steel", "wood")
# lengths of the config below, in characters and in tokens
MAX_QUERY, MAX_TITLE, MAX_LENGTH = 200, 500, 32

# runs the stage and says how long it took, and what memory the process took at most, in MiB
MEASURED = """
import json, sys, time
from rich.console import Console
from sie_jax.config import Config
from sie_jax.recipes import relevance
path, workdir, options = sys.argv[1:]
config = Config(name="table")
config.data.source, config.data.path = "table", path
config.data.columns.split = "split"
config.data.table.attributes, config.data.table.raters = ("brand",), ("rating_1", "rating_2")
config.data.vocabulary_size = 500
for name, value in json.loads(options).items():
    setattr(config.data.table if name == "labels" else config.data, name, value)
config.model.hidden_size, config.model.num_attention_heads = 8, 2
with relevance.opened(config, workdir, console=Console(quiet=True)) as opened:
    started = time.perf_counter()
    relevance.prepared(config, opened)
print(time.perf_counter() - started)
# getrusage would count what the parent had when it started this process
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(int(peak.split()[1]) / 1024)
"""
OPTIONS = {
    "labels": LABELS,
    "max_query_characters": MAX_QUERY,
    "max_title_characters": MAX_TITLE,
    "max_length": MAX_LENGTH,
}

Cells = dict[str, str | None]

# Ways to break a row's cells, whatever the file → the reason it is rejected for.
CELLS_BROKEN = {
    "no query": "missing_query",
    "a query of white space": "missing_query",
    "no title": "missing_title",
    "a title of markup alone": "missing_title",
    "a query of too many characters": "query_too_long",
    "a title of too many characters": "title_too_long",
    "a query of too many tokens": "query_fills_max_length",
    "no label": "label_outside_scale",
    "a label off the scale": "label_outside_scale",
    "a rating off the scale": "rater_outside_scale",
    "a copy of the row before": "exact_duplicate",
    "the row before with another label": "conflicting_labels",
    "a training row of a test query": "query_in_test",
    "a training row of a validation query": "query_in_validation",
}
# Ways to break a line, by kind of file → likewise.
DELIMITED_BROKEN = {
    "another delimiter": "wrong_field_count",
    "a cell too few": "wrong_field_count",
    "a cell too many": "wrong_field_count",
    "text after a closing quote": "unparsable_line",
    "bytes of Latin-1": "not_utf8",
}
LINES_BROKEN = {
    "csv": DELIMITED_BROKEN,
    "tsv": DELIMITED_BROKEN,
    "jsonl": {
        "a line cut off": "unparsable_line",
        "a list": "unparsable_line",
        "half a surrogate pair": "unparsable_line",
        "bytes of Latin-1": "not_utf8",
    },
    "parquet": {"bytes of Latin-1": "not_utf8"},
}


class Row(NamedTuple):
    """A row to write, its number, and the way in which it is broken, if it is."""

    number: int
    cells: Cells
    way: str = ""


def rows(size: int, kind: str) -> Iterator[Row]:
    """`size` rows; the ways of this kind of file take turns, one for each query."""
    generator = random.Random(0)
    ways = [*CELLS_BROKEN, *LINES_BROKEN[kind]]
    before: Cells = {}
    for number in range(size):
        query, place = divmod(number, ROWS_OF_A_QUERY)
        way = ways[query % len(ways)]
        # held out are the queries that leak, so that each of these ways has something to leak from
        split = {
            "a training row of a test query": "test",
            "a training row of a validation query": "validation",
        }.get(way, "train")
        label = generator.choice(LABELS)
        cells: Cells = {
            # all different, and of as many words in a large table as in a small one
            "query": f"{WORDS[query % 7]} {apart(query)}",
            "title": f'{" ".join(generator.choices(WORDS, k=8))}, 5", Größe {apart(number)}',
            "label": label,
            "split": split,
            "brand": generator.choice(WORDS),
            "rating_1": label,
            "rating_2": generator.choice((*LABELS, None)),
        }
        if place == BROKEN_AT:
            if way in CELLS_BROKEN:
                cells |= broken_cells(way, cells, before)
            yield Row(number, cells, way)
        else:
            yield Row(number, cells)
        before = cells


def apart(number: int) -> str:
    """A number as words of three digits at most."""
    return f"{number:_}".replace("_", " ")


def broken_cells(way: str, cells: Cells, before: Cells) -> Cells:
    """What changes in a row that is broken in one of the ways of CELLS_BROKEN."""
    other = LABELS[(LABELS.index(before["label"] or "") + 1) % len(LABELS)]
    changes: dict[str, Cells] = {
        "no query": {"query": None},
        "a query of white space": {"query": " \u00a0 "},
        "no title": {"title": None},
        "a title of markup alone": {"title": "<p>&nbsp;</p>"},
        "a query of too many characters": {"query": "x" * (MAX_QUERY + 1)},
        "a title of too many characters": {"title": "x" * (MAX_TITLE + 1)},
        # even if each word were one token
        "a query of too many tokens": {"query": f"{cells['query']} {'red ' * MAX_LENGTH}"},
        "no label": {"label": None},
        "a label off the scale": {"label": "splendid"},
        "a rating off the scale": {"rating_1": "splendid"},
        "a copy of the row before": before,
        "the row before with another label": {**before, "label": other},
        "a training row of a test query": {"split": "train"},
        "a training row of a validation query": {"split": "train"},
    }
    return changes[way]


def delimited(row: Row, mark: str) -> bytes:
    """A line of CSV or TSV, without its end."""
    cells = [quoted(cell or "", mark) for cell in row.cells.values()]
    if row.way == "another delimiter":
        return ";".join(cells).encode()
    if row.way == "a cell too few":
        cells.pop()
    elif row.way == "a cell too many":
        cells.append("more")
    elif row.way == "text after a closing quote":
        cells[1] += "more"
    line = mark.join(cells)
    return line.encode("latin-1" if row.way == "bytes of Latin-1" else "utf-8")


def quoted(cell: str, mark: str) -> str:
    """The cell, in quotes where it needs them."""
    return '"' + cell.replace('"', '""') + '"' if mark in cell or '"' in cell else cell


def json_line(row: Row) -> bytes:
    """A line of JSON lines, without its end."""
    if row.way == "a list":
        return json.dumps(list(row.cells.values()), ensure_ascii=False).encode()
    line = json.dumps(row.cells, ensure_ascii=False)
    if row.way == "half a surrogate pair":
        line = line.replace("Größe", r"\ud83d")
    elif row.way == "a line cut off":
        line = line[:40]
    return line.encode("latin-1" if row.way == "bytes of Latin-1" else "utf-8")


def write_parquet(path: Path, some: list[Row]) -> None:
    """As columns of strings, some of which are none: their bytes are of another encoding."""
    columns = {}
    for name in COLUMNS:
        cells = [
            cell and cell.encode("latin-1" if way == "bytes of Latin-1" else "utf-8")
            for cell, way in ((row.cells[name], row.way) for row in some)
        ]
        columns[name] = pa.array(cells, pa.binary()).view(pa.string())
    pq.write_table(pa.table(columns), path)


def write(path: Path, kind: str, size: int) -> tuple[dict[str, str], Counter[str]]:
    """Writes the table, a folder of parts where `path` has no suffix.

    Returns:
      What must be rejected, as reasons by example_id, and how often rows are broken in which way.
    """
    reasons: dict[str, str] = {}
    ways: Counter[str] = Counter()
    files = [path]
    if not path.suffix:
        path.mkdir()
        files = [path / f"part-{i}.{kind}" for i in range(PARTS)]
    made = rows(size, kind)
    for file in files:
        part = list(islice(made, size // len(files)))
        if kind == "parquet":
            write_parquet(file, part)
        elif kind == "jsonl":
            file.write_bytes(b"\n".join(map(json_line, part)))
        else:
            mark = {"csv": ",", "tsv": "\t"}[kind]
            lines = [mark.join(COLUMNS).encode(), *(delimited(row, mark) for row in part)]
            file.write_bytes(b"\n".join(lines))
        first = 2 if kind in ("csv", "tsv") else 1  # the line of the first row
        for line, row in enumerate(part, first):
            if not row.way:
                continue
            ways[row.way] += 1
            if row.way in LINES_BROKEN[kind]:
                reasons[f"{file.name}:{line}"] = LINES_BROKEN[kind][row.way]
                continue
            reasons[str(row.number)] = CELLS_BROKEN[row.way]
            if row.way == "the row before with another label":  # nothing says which is right
                reasons[str(row.number - 1)] = CELLS_BROKEN[row.way]
    return reasons, ways


def measure(folder: Path, name: str, kind: str, size: int) -> dict[str, Any]:
    """The figures of one table."""
    path = folder / (name if name == "parts" else f"pairs.{kind}")
    reasons, ways = write(path, kind, size)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    command = [sys.executable, "-c", MEASURED, str(path), str(folder / "work"), json.dumps(OPTIONS)]
    anonymous = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            found = [line for line in status.read_text().splitlines() if "RssAnon" in line]
            if found:  # none once it has ended
                anonymous = max(anonymous, int(found[0].split()[1]) / 1024)
            time.sleep(0.005)
        assert child.stdout
        seconds, peak = map(float, child.stdout.read().split())
    counts = read_json(folder / "work" / "cleaning.json")
    columns = pq.read_table(folder / "work" / "rejected.parquet", columns=["example_id", "reason"])
    rejected = dict(zip(*(column.to_pylist() for column in columns.columns), strict=True))
    planted = Counter(reasons.values())
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "broken_rows": ways.total(),
        "ways": dict(ways),
        "read": counts["read"],
        "kept": counts["kept"],
        "rejected": columns.num_rows,
        "reasons": {
            reason: {"planted": planted[reason], "counted": counts["rejected"].get(reason, 0)}
            for reason in sorted(planted.keys() | counts["rejected"].keys())
        },
        "right": rejected == reasons
        and columns.num_rows == len(reasons)
        and counts["rejected"] == dict.fromkeys(counts["rejected"], 0) | planted
        and counts["read"] == size == counts["kept"] + columns.num_rows,
        "seconds": round(seconds, 2),
        "peak_mebibytes": round(peak, 1),
        "peak_anonymous_mebibytes": round(anonymous, 1),
    }


def main() -> None:
    tables: dict[str, dict[str, Any]] = {}
    for name, kind in (*((kind, kind) for kind in LINES_BROKEN), ("parts", "csv")):
        tables[name] = {}
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(Path(folder), name, kind, size)
            tables[name][f"{size} rows"] = found
            figures = ("right", "read", "kept", "rejected", "seconds", "peak_mebibytes")
            print(name, size, {figure: found[figure] for figure in figures}, flush=True)
    write_json(RESULTS, {"device": jax.devices()[0].device_kind, "tables": tables})
    wrong = [
        f"{name}, {size}"
        for name, sizes in tables.items()
        for size, found in sizes.items()
        if not found["right"]
    ]
    if wrong:
        sys.exit(f"other rows or counts than planted: {'; '.join(wrong)}; see {RESULTS}")


if __name__ == "__main__":
    main()
