"""Is a table read alike, whichever program wrote it? Rows read, kept and rejected of each file.

    python benchmarks/foreign_files.py     # a minute; SIE_JAX_DATA=FOLDER adds the files kept there

One table of judged pairs is written by pandas, Polars and DuckDB in the kinds of file and with the
types that they offer, as spreadsheets save it, and as lists of judgments by scikit-learn and in the
forms of TREC and BEIR. Its titles have quotes, commas, tabs and line ends in them; it has missing
cells, a title and a label that are missing, a repeated row and two that contradict each other. Each
file is read and cleaned as the stage `prepare` does it. `same` says whether the rows that are kept
are those of the table: texts, labels, and the numbers of prices, stock, scores and vectors; rows in
which a letter was not written as UTF-8 are left out of the comparison. A file that cannot be read
is there with the line that says so. Ends with 1 where a file that is read gives other rows.

With SIE_JAX_DATA it also counts the rows of UBI events and of inputs on which the product failed.
"""

import csv
import datetime
import importlib.metadata
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import ir_measures
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytrec_eval
from interleaved import machine
from same_results import commit_of
from sklearn.datasets import dump_svmlight_file

from sie_jax import serving
from sie_jax.data import cleaning, tokenization
from sie_jax.data.section import DataConfig
from sie_jax.errors import UserError
from sie_jax.evaluation import trec_pair
from sie_jax.files import write_json

RESULTS = Path(__file__).parent / "results" / "foreign_files.json"
TOOLS = (
    "pandas",
    "polars",
    "duckdb",
    "pyarrow",
    "scikit-learn",
    "ir-measures",
    "pytrec-eval-terrier",
)
QUERIES = ("red shoes", "grüne Teekanne", 'tv 42"', "ガラス 皿", "lamp, white", "rope; 5 m")
ENDS = ("", ' 5" wide', ", new", "; old", "\nsecond line", ' "the best"', "\ttabbed", " größer")
COLUMNS = ["query", "item_id", "title", "label"]
NUMBERS = ["price", "stock", "score", "image"]
REJECTED = {
    "missing_title": 1,
    "label_outside_scale": 1,
    "exact_duplicate": 1,
    "conflicting_labels": 2,
}
Row = dict[str, Any]


def rows() -> list[Row]:
    """120 sound rows, and the five of REJECTED."""
    draw = random.Random(0)
    found: list[Row] = []
    for at, query in enumerate(QUERIES):
        for place in range(20):
            number = 20 * at + place
            found.append(
                {
                    "query": query,
                    "item_id": f"{number:05d}",
                    "title": f"{query} no {number}{ENDS[place % len(ENDS)]}",
                    "label": place % 4,
                    "brand": (None, "Acme", "Größe & Co")[place % 3],
                    "price": None if place == 3 else Decimal(draw.randrange(100, 99999)) / 100,
                    "stock": None if place == 5 else draw.randrange(2**40),
                    "score": None if place == 7 else draw.randrange(1000) / 1000,
                    "added": datetime.datetime(2024, 5, 6, 7, 8, place),
                    "image": None if place == 9 else [draw.randrange(99) / 8 for _ in range(3)],
                }
            )
    first: Row = found[0]
    others: list[Row] = [
        {"item_id": "90001", "title": None},
        {"item_id": "90002", "title": "without a label", "label": None},
        {},
        {"item_id": "90003", "title": "good or bad", "label": 0},
        {"item_id": "90003", "title": "good or bad", "label": 3},
    ]
    return found + [first | other for other in others]


ROWS = rows()


# How each program writes the table


def by_pandas(folder: Path) -> Iterator[tuple[str, Path]]:
    frame = pd.DataFrame(ROWS).astype({"label": "Int64", "stock": "Int64", "brand": "category"})
    exact = frame.astype({"price": "float64"})
    for name, what, options in (
        ("plain.csv", "with its index", {}),
        ("quoted.csv", "all quoted", {"index": False, "quoting": csv.QUOTE_ALL}),
        ("plain.tsv", "tabs", {"index": False, "sep": "\t"}),
        ("packed.csv.gz", "gzip", {"index": False}),
        ("packed.csv.zst", "Zstandard", {"index": False}),
        ("floats.csv", "whole numbers as 2.0", {"index": False}),
    ):
        if name.endswith(".zst") and not _there("zstandard"):
            continue
        kept = exact.astype({"label": "float64"}) if name == "floats.csv" else exact
        kept.to_csv(folder / name, **options)
        yield what, folder / name
    for name, what in (("lines.jsonl", "JSON lines"), ("lines.ndjson.gz", "JSON lines, gzip")):
        exact.to_json(folder / name, orient="records", lines=True, date_format="iso")
        yield what, folder / name
    exact.to_json(folder / "array.json", orient="records", date_format="iso")
    yield "a JSON array", folder / "array.json"
    frame.to_parquet(folder / "default.parquet")
    yield "categories, Int64, decimals, timestamps, lists", folder / "default.parquet"
    for packed in ("snappy", "gzip", "brotli", "zstd", "lz4"):
        frame.to_parquet(folder / f"{packed}.parquet", compression=packed, index=False)
        yield packed, folder / f"{packed}.parquet"
    texts = {name: pd.ArrowDtype(pa.large_string()) for name in ("query", "title", "item_id")}
    arrow = exact.astype(texts | {"stock": "float64", "score": "float32", "label": "float64"})
    arrow.to_parquet(folder / "arrow.parquet")
    yield "large_string, whole numbers as floats", folder / "arrow.parquet"
    every = dict.fromkeys(COLUMNS, "category")
    frame.astype(every).to_parquet(folder / "categories.parquet")
    yield "all categories", folder / "categories.parquet"
    frame.drop(columns="image").to_parquet(folder / "parts", partition_cols=["brand"])
    yield "partitioned by a column", folder / "parts"


def by_polars(folder: Path) -> Iterator[tuple[str, Path]]:
    frame = pl.DataFrame(ROWS, schema_overrides={"price": pl.Decimal(8, 2), "label": pl.Int8})
    texts = pl.concat_str(
        pl.lit("["), pl.col("image").cast(pl.List(pl.String)).list.join(", "), pl.lit("]")
    )
    flat = frame.with_columns(texts.alias("image"))
    flat.write_csv(folder / "plain.csv")
    yield "vectors as texts", folder / "plain.csv"
    flat.write_csv(folder / "semicolons.csv", separator=";", include_bom=True, quote_style="always")
    yield "semicolons, byte order mark, all quoted", folder / "semicolons.csv"
    flat.write_csv(folder / "plain.tsv", separator="\t", line_terminator="\r\n")
    yield "tabs, CRLF", folder / "plain.tsv"
    frame.write_ndjson(folder / "lines.ndjson")
    yield "JSON lines", folder / "lines.ndjson"
    frame.write_parquet(folder / "default.parquet")
    yield "decimals, microseconds, lists", folder / "default.parquet"
    unusual = frame.with_columns(
        pl.col("brand").cast(pl.Categorical),
        pl.col("query").cast(pl.Enum(list(QUERIES))),
        pl.col("added").dt.replace_time_zone("Europe/Vienna"),
        pl.col("image").cast(pl.Array(pl.Float32, 3)),
        pl.col("score").cast(pl.Float32),
        pl.col("stock").cast(pl.UInt64),
        pl.col("label").cast(pl.String),
    )
    for packed in ("snappy", "gzip", "brotli", "zstd", "lz4", "uncompressed"):
        unusual.write_parquet(folder / f"{packed}.parquet", compression=packed, row_group_size=50)
        yield f"categories, enums, time zones, arrays, {packed}", folder / f"{packed}.parquet"


def by_duckdb(folder: Path) -> Iterator[tuple[str, Path]]:
    base = duckdb.connect()
    base.register("source", pa.Table.from_pylist(ROWS))
    base.execute("create table judged as select * from source")
    unusual = (
        "select * replace (label::hugeint as label, score::float as score, query::enum_query as "
        "query, added::timestamptz as added, image::float[] as image, price::double as price) "
        "from judged"
    )
    arrays = "(select * replace (image::float[3] as image) from judged)"
    words = ", ".join("'" + query.replace("'", "''") + "'" for query in QUERIES)
    base.execute(f"create type enum_query as enum ({words})")
    for name, what, query, options in (
        ("plain.csv", "lists as texts", "judged", "format csv, header"),
        ("semicolons.csv", "semicolons", "judged", "format csv, header, delimiter ';'"),
        ("packed.csv.zst", "Zstandard", "judged", "format csv, header, compression zstd"),
        ("packed.csv.gz", "gzip", "judged", "format csv, header, compression gzip"),
        ("bare.csv", "without a header", "judged", "format csv, header false"),
        ("plain.tsv", "tabs, all quoted", "judged",
         "format csv, header, delimiter '\t', force_quote *"),
        ("lines.ndjson", "JSON lines", "judged", "format json"),
        ("lines.jsonl.gz", "JSON lines, gzip", "judged", "format json, compression gzip"),
        ("default.parquet", "decimals, timestamps, lists", "judged", "format parquet"),
        ("second.parquet", "Parquet version 2", "judged", "format parquet, parquet_version v2"),
        ("arrays.parquet", "arrays, some of them null", arrays, "format parquet"),
        *(
            (f"{packed}.parquet", f"enums, hugeint, floats, {packed}", f"({unusual})",
             f"format parquet, compression {packed}, row_group_size 2048")
            for packed in ("snappy", "gzip", "brotli", "zstd", "lz4_raw", "uncompressed")
        ),
    ):  # fmt: skip
        base.execute(f"copy {query} to '{folder / name}' ({options})")
        yield what, folder / name


def by_spreadsheet(folder: Path) -> Iterator[tuple[str, Path]]:
    """As Excel and LibreOffice save a sheet as text, by what their manuals and files show."""
    for name, what, delimiter, encoding, comma in (
        ("utf8.csv", "Excel: CSV UTF-8", ",", "utf-8-sig", False),
        ("german.csv", "Excel, German: CSV UTF-8", ";", "utf-8-sig", True),
        ("ansi.csv", "Excel: CSV (Windows-1252)", ",", "cp1252", False),
        ("unicode.tsv", "Excel: Unicode text", "\t", "utf-16", False),
        ("office.csv", "LibreOffice: texts quoted", ",", "utf-8", False),
        ("german_office.csv", "LibreOffice, German", ";", "utf-8", True),
    ):
        text = io.StringIO()
        office = "Libre" in what
        end = "\n" if office else "\r\n"
        quoting: Any = csv.QUOTE_NONNUMERIC if office else csv.QUOTE_MINIMAL
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerow(ROWS[0])
        for row in ROWS:
            numbers = {key: float(row[key]) for key in ("price", "score") if row[key] is not None}
            cells = row | (
                {key: f"{one:.10g}".replace(".", ",") for key, one in numbers.items()}
                if comma
                else numbers
            )
            writer.writerow("" if one is None else one for one in cells.values())
        data = text.getvalue().encode(encoding, "replace")
        (folder / name).write_bytes(data)
        yield what, folder / name


TABLES: dict[str, Callable[[Path], Iterator[tuple[str, Path]]]] = {
    "pandas": by_pandas,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "spreadsheets": by_spreadsheet,
}


def _there(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


# What the product makes of them


def read(path: Path, change: Callable[[DataConfig], None], *, source: str = "table") -> Row:
    """The counts of a source, and the rows that are kept; or the line by which it is refused."""
    data = DataConfig(source=source, path=str(path))
    change(data)
    try:
        data.check()
        found = data.read()
        cleaned = cleaning.clean(
            found.table,
            found.scale,
            max_query_characters=data.max_query_characters,
            max_title_characters=data.max_title_characters,
        )
    except UserError as error:
        return {"refused": str(error).replace(str(path.parent), "FOLDER")}
    rejected = Counter(found.unreadable["reason"].to_pylist()) + Counter(cleaned.counts)
    left_out = found.unreadable.num_rows + cleaned.rejected.num_rows
    assert sum(rejected.values()) == left_out
    return {
        "read": cleaned.kept.num_rows + left_out,
        "kept": cleaned.kept.num_rows,
        "rejected": dict(rejected),
        "rows": cleaned.kept.to_pylist(),
        **({"summary": found.summary} if found.summary else {}),
    }


def as_table(data: DataConfig) -> None:
    """The table's columns."""
    data.columns.item_id, data.columns.current = "item_id", "score"
    data.features, data.vectors = ("price", "stock"), ("image",)
    data.table.attributes = ("brand", "added")
    data.table.labels = ("0", "1", "2", "3")


def wanted() -> list[tuple[Any, ...]]:
    """What is to be kept, in the form of `told`."""
    return [
        (
            one["query"],
            one["item_id"],
            " ".join(one["title"].split()),
            one["label"],
            one["brand"] or "",
            None if one["price"] is None else float(one["price"]),
            one["stock"],
            one["score"],
            *(one["image"] or [None] * 3),
        )
        for one in ROWS[: 20 * len(QUERIES)]
    ]


def told(kept: list[Row]) -> list[tuple[Any, ...]]:
    names = ["query", "item_id", "title", "label", "attribute:brand"]
    names += ["numeric:price", "numeric:stock", "current"]
    names += [f"numeric:image[{at}]" for at in range(3)]
    # a program that cannot write a letter in the encoding of its file writes a question mark
    return [tuple(row[name] for name in names) for row in kept if "?" not in row["query"]]


def tables(folder: Path) -> Iterator[Row]:
    for tool, write in TABLES.items():
        (folder / tool).mkdir()
        for what, path in write(folder / tool):
            found = read(path, as_table)
            if "rows" in found:
                expected, reasons = wanted(), dict(found["rejected"])
                if reasons.pop("not_utf8", 0):
                    expected = [one for one in expected if "".join(map(str, one)).isascii()]
                found["same"] = told(found.pop("rows")) == expected and reasons == REJECTED
            yield {"tool": tool, "what": what, "file": path.name, **found}


# Lists of judgments


def lists(folder: Path) -> Iterator[Row]:
    sound = ROWS[: 20 * len(QUERIES)]
    number = {query: str(at) for at, query in enumerate(QUERIES, 1)}
    catalogue = folder / "items.csv"
    pd.DataFrame(sound)[["item_id", "title"]].to_csv(catalogue, index=False)
    queries = folder / "queries.tsv"
    queries.write_text("".join(f"{at}\t{query}\n" for query, at in number.items()), "utf-8")

    def texts(data: DataConfig) -> None:
        data.judgments.queries, data.items.path = str(queries), str(catalogue)

    def judged(name: str, lines: list[str]) -> Path:
        (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return folder / name

    features = np.array([[float(row["label"]), row["score"] or 0.0] for row in sound])
    labels = np.array([row["label"] for row in sound])
    ids = np.array([int(number[row["query"]]) for row in sound])
    svm = folder / "svmlight.txt"
    dump_svmlight_file(features, labels, str(svm), query_id=ids, comment="judged pairs")
    yield _list("scikit-learn", "dump_svmlight_file", svm, texts)
    lines = svm.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    pairs = [
        f"{line} # {row['item_id']}"
        for line, row in zip(lines[len(comments) :], sound, strict=True)
    ]
    named = judged("named.txt", [*comments, *pairs])
    yield _list("scikit-learn", "dump_svmlight_file, documents added", named, texts)
    forms = {
        "trec.qrels": ("spaces", "{query} 0 {item_id} {label}"),
        "tabs.qrels": ("tabs", "{query}\t0\t{item_id}\t{label}"),
    }
    for name, (what, form) in forms.items():
        path = judged(name, [form.format(**row | {"query": number[row["query"]]}) for row in sound])
        with path.open() as file:
            theirs = sum(map(len, pytrec_eval.parse_qrel(file).values()))
        assert theirs == len(list(ir_measures.read_trec_qrels(str(path)))) == len(sound)
        yield _list("TREC", f"qrels, {what}", path, texts)
        values = trec_pair.read_qrels(path)
        assert sum(map(len, values.values.values())) == len(sound)
    line = "{query} Q0 {item_id} 1 {label} bm25"
    run = judged("bm25.run", [line.format(**row | {"query": "1"}) for row in sound])
    assert sum(map(len, trec_pair.read_run(run).values.values())) == len(sound)

    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": row["item_id"], "title": row["title"], "text": "", "metadata": {}})
            + "\n"
            for row in sound
        )
    )
    (beir / "queries.jsonl").write_text(
        "".join(
            json.dumps({"_id": at, "text": query, "metadata": {}}) + "\n"
            for query, at in number.items()
        )
    )
    (beir / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"{number[row['query']]}\t{row['item_id']}\t{row['label']}\n" for row in sound)
    )

    def of_beir(data: DataConfig) -> None:
        data.judgments.queries = str(beir / "queries.jsonl")
        data.columns.query_id, data.columns.query = "_id", "text"
        data.items.path = str(beir / "corpus.jsonl")
        data.items.columns.item_id, data.items.columns.text = "_id", "text"

    yield _list("BEIR", "a folder", beir / "qrels" / "test.tsv", of_beir)


def _list(tool: str, what: str, path: Path, change: Callable[[DataConfig], None]) -> Row:
    found = read(path, change, source="judgments")
    if "rows" in found:
        kept = [tuple(row[name] for name in COLUMNS) for row in found.pop("rows")]
        found["same"] = not found["rejected"] and kept == [one[:4] for one in wanted()]
    found.pop("summary", None)
    return {"tool": tool, "what": what, "file": path.name, **found}


# Files that are kept elsewhere


def kept_files(folder: Path) -> Iterator[Row]:
    """Counts of $SIE_JAX_DATA/ubi and of every folder of $SIE_JAX_DATA/cases."""

    def counted(name: str, path: Path, source: str, **change: Any) -> Row:
        def changed(data: DataConfig) -> None:
            for field, value in change.items():
                part, _, inner = field.rpartition("__")
                setattr(getattr(data, part) if part else data, inner, value)

        found = read(path, changed, source=source)
        found.pop("rows", None)
        return {"folder": name, "file": path.name, **found}

    from sie_jax.data.sources import ubi  # its events alone are counted where they give no grades

    def events(name: str, path: Path, **options: Any) -> Row:
        found = ubi.exposures(str(path), ubi.UbiConfig(**options)).summary
        return {"folder": name, "file": path.name, "events": found}

    yield events("ubi", folder / "ubi" / "ubi_queries_events.ndjson", first_position=0)
    with tempfile.TemporaryDirectory() as made:
        lines = (folder / "ubi" / "ubi_queries_events.ndjson").read_text("utf-8").splitlines()
        others = Path(made) / "without_impressions.ndjson"
        others.write_text("\n".join(line for line in lines if '"impression"' not in line), "utf-8")
        yield events("ubi", others)
    cases = folder / "cases"
    yield events("ubi_events", cases / "ubi_events" / "events.ndjson")
    for name in ("pairs.csv.gz", "pairs.ndjson"):
        yield counted("compressed", cases / "compressed" / name, "table")
    yield counted("decimal_and_dates", cases / "decimal_and_dates" / "labels.parquet", "table")
    for name in ("large_string", "plain_control"):
        yield counted("esci_resaved", cases / "esci_resaved" / name, "esci")
    folder = cases / "judgment_lists"
    with tempfile.TemporaryDirectory() as made:
        texts = Path(made)
        words = {"1": "tea pot", "2": "garden hose", "3": "red shoes"}
        queries = texts / "queries.tsv"
        queries.write_text("".join(f"{one}\t{text}\n" for one, text in words.items()))
        items = texts / "items.csv"
        ids = sorted({
            word
            for name in ("ltr.txt", "qrels.tsv", "quepid.csv")
            for word in (folder / name).read_text().replace(",", " ").split()
            if word.isdecimal()
        })  # fmt: skip
        items.write_text("item_id,title\n" + "".join(f"{one},item {one}\n" for one in ids))
        for name in ("ltr.txt", "qrels.tsv"):
            lists = {"judgments__queries": str(queries), "items__path": str(items)}
            yield counted("judgment_lists", folder / name, "judgments", **lists)
        yield counted(
            "judgment_lists", folder / "quepid.csv", "table", items__path=str(items),
            columns__item_id="docid", columns__label="rating", table__labels=("0", "1", "2", "3"),
        )  # fmt: skip
    yield counted("nan_jsonl", cases / "nan_jsonl" / "pairs.jsonl", "table")
    for name in ("before.csv", "after.csv"):
        yield counted("stale_data", cases / "stale_data" / name, "table")
    yield counted("tsv_quote", cases / "tsv_quote" / "pairs.tsv", "table")
    for name in ("exported_max_length", "one_segment_type"):
        try:
            serving.load(cases / name / "model")
            yield {"folder": name, "file": "model", "loaded": True}
        except UserError as error:
            yield {"folder": name, "file": "model", "refused": str(error).replace(str(cases), "")}
    found = tokenization.load(cases / "vocab_txt_options" / "polish")
    yield {"folder": "vocab_txt_options", "file": "polish", "tokens": len(found)}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sie_jax-") as made:
        folder = Path(made)
        found = [*tables(folder), *lists(folder)]
    data = os.environ.get("SIE_JAX_DATA", "")
    kept = list(kept_files(Path(data))) if data else None
    for one in [*found, *(kept or [])]:
        print(*(f"{key}={value}" for key, value in one.items() if key != "summary"))
    versions = {name: importlib.metadata.version(name) for name in TOOLS}
    about = {"tools": versions, **machine(), "commit": commit_of("HEAD")}
    write_json(RESULTS, {**about, "files": found, "kept_elsewhere": kept})
    sys.exit(any(not one.get("same", True) for one in found))


if __name__ == "__main__":
    main()
