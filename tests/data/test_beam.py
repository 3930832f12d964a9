"""Beam leaves what one machine leaves, row for row."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data import preparing, tokenization
from sie_jax.data.schema import (
    ATTRIBUTE,
    CATALOGUE_SCHEMA,
    CURRENT,
    NUMERIC,
    RATER,
    SPLITS,
    Source,
)
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import esci, synthetic
from sie_jax.errors import UserError
from sie_jax.files import read_json

pytest.importorskip("apache_beam", reason="pip install -e '.[beam]'", exc_type=ImportError)

from sie_jax.data import beam, beam_workers

SAMPLE = Path(os.environ.get("SIE_JAX_DATA", "")) / "esci"
DATA = DataConfig(item_text=True, max_length=16)  # so short that some queries fill it


class Workdirs(NamedTuple):
    local: Path
    beam: Path


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    shop = synthetic.read(queries=60, items_per_query=5).table
    texts = shop["query"].to_pylist() + shop["title"].to_pylist()
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenization.train(filter(None, texts), vocabulary_size=300).save_pretrained(folder)
    return str(folder)


def parts(source: Source, folder: Path, row_group_size: int) -> list[beam_workers.Part]:
    """The source's rows in two files with row groups of that size."""
    half = source.table.num_rows // 2
    files = [folder / "0.parquet", folder / "1.parquet"]
    for file, rows in zip(files, (source.table[:half], source.table[half:]), strict=True):
        pq.write_table(rows, file, row_group_size=row_group_size)
    return beam_workers.parts(files)


def store(
    source: Source, parts: list[beam_workers.Part] | None, workdir: Path, tokenizer_folder: str
) -> None:
    beam.store(
        source,
        parts,
        workdir,
        rules=DATA.rules,
        encoding=DATA.encoding(tokenizer_folder),
        keep_catalogue=True,
        options=["--runner=DirectRunner"],
    )


def both(
    source: Source,
    folder: Path,
    tokenizer_folder: str,
    of_beam: Source,
    parts: list[beam_workers.Part] | None,
) -> Workdirs:
    preparing.store(
        DATA.select(source),
        folder / "local",
        DATA.encoding(tokenizer_folder),
        keep_catalogue=True,
    )
    store(of_beam, parts, folder / "beam", tokenizer_folder)
    return Workdirs(folder / "local", folder / "beam")


def shop(**changed: Any) -> Source:
    """A shop without splits, half of whose queries have one, with dirt and further columns."""
    source = synthetic.read(**{"queries": 150, "items_per_query": 5, "dirt": 0.2, **changed})
    rows = source.table.num_rows
    numbers = np.random.default_rng(0).integers(0, 10, rows)
    splits = ["test" if n == 0 else "validation" if n == 1 else "" for n in numbers.tolist()]
    judged = source.table.set_column(
        source.table.column_names.index("split"), "split", pa.array(splits, pa.string())
    )
    judged = judged.append_column(ATTRIBUTE + "even", pa.array([str(n % 2) for n in range(rows)]))
    judged = judged.append_column(RATER + "one", source.table["label"])
    prices = [None if n % 5 == 0 else n / 3 for n in range(rows)]
    for name in (NUMERIC + "price", CURRENT):
        judged = judged.append_column(name, pa.array(prices, pa.float64()))
    return dataclasses.replace(
        source,
        table=judged,
        unreadable=pa.Table.from_pylist(
            [{"example_id": "a.csv:3", "text": "?", "reason": "unparsable_line"}],
            schema=source.unreadable.schema,
        ),
        catalogue=pa.table(
            {"item_id": ["x"], "title": ["a <b>lamp</b>"], "text": [None]}, schema=CATALOGUE_SCHEMA
        ),
        summary={"impressions": 12},
    )


@pytest.fixture(scope="module")
def synthetic_workdirs(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Workdirs:
    source, folder = shop(), tmp_path_factory.mktemp("shop")
    return both(source, folder, tokenizer_folder, source, parts(source, folder, 100))


@pytest.fixture(scope="module")
def esci_workdirs(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Workdirs:
    if not SAMPLE.is_dir():
        pytest.skip("SIE_JAX_DATA names no folder with esci")
    source, folder = esci.read(str(SAMPLE)), tmp_path_factory.mktemp("esci")
    return both(source, folder, tokenizer_folder, source, parts(source, folder, 2000))


@pytest.fixture(scope="module")
def table_workdirs(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Workdirs:
    """A user's own table without ids; a title in the second file is not UTF-8."""
    folder, rows = tmp_path_factory.mktemp("table"), shop().table
    titles = [title and title.encode() for title in rows["title"].to_pylist()]
    titles[-7] = b"\xff\xfe"
    own = pa.table(
        {
            "q": rows["query"],
            "t": pa.array(titles, pa.binary()),
            "l": rows["label"],
            "even": rows[ATTRIBUTE + "even"],
            "price": rows[NUMERIC + "price"],
            "written": rows[CURRENT].cast(pa.string()),
        }
    )
    path = folder / "own"
    path.mkdir()
    for number, part in enumerate((own[:400], own[400:])):
        pq.write_table(part, path / f"{number}.parquet", row_group_size=150)
    data = DataConfig(source="table", path=str(path))
    data.columns.query, data.columns.title, data.columns.label = "q", "t", "l"
    data.columns.current, data.features = "written", ("price",)
    data.table.labels, data.table.attributes = tuple("ICSE"), ("even",)
    without_rows, found = beam.read(data)
    assert without_rows.table.num_rows == 0
    assert found
    assert len(found) > 4
    return both(data.read(), folder, tokenizer_folder, without_rows, found)


@pytest.fixture(scope="module", params=["synthetic", "esci", "table"])
def workdirs(request: pytest.FixtureRequest) -> Workdirs:
    found: Workdirs = request.getfixturevalue(f"{request.param}_workdirs")
    return found


def test_the_same_pairs_in_the_same_order(workdirs: Workdirs) -> None:
    local, other = preparing.load(workdirs.local), preparing.load(workdirs.beam)
    assert local.pairs.num_rows > 100
    assert other.pairs.schema == local.pairs.schema
    assert other.pairs.equals(local.pairs)
    assert other.scale == local.scale
    assert other.boundaries == local.boundaries
    assert other.tokenizer.get_vocab() == local.tokenizer.get_vocab()


def test_numbers_are_carried(synthetic_workdirs: Workdirs, table_workdirs: Workdirs) -> None:
    for workdir in (synthetic_workdirs.beam, table_workdirs.beam):
        pairs = preparing.load(workdir).pairs
        missing = read_json(workdir / "cleaning.json")["missing"]
        for name in (NUMERIC + "price", CURRENT):
            assert pairs[name].type == pa.float64()
            assert 0 < missing[name] == pairs[name].null_count < pairs.num_rows


@pytest.mark.parametrize("every", [1, 10])
def test_a_cell_that_is_no_number_is_named_by_the_worker_that_reads_it(
    tmp_path: Path, tokenizer_folder: str, every: int
) -> None:
    rows = [
        {"query": f"q{n // 5}", "title": f"t{n}", "label": "IE"[n % 2], "price": str(n)}
        for n in range(60)
    ]
    for n in range(3, 60, every):
        rows[n]["price"] = "n/a"
    path = tmp_path / "own.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    data = DataConfig(source="table", path=str(path), features=("price",))
    data.table.labels = ("I", "E")
    source, found = beam.read(data)
    said = f"{path}, row 4: the column 'price' holds 'n/a', which is not a finite number"
    with pytest.raises(UserError, match=re.escape(said)):
        store(source, found, tmp_path / "beam", tokenizer_folder)
    assert list((tmp_path / "beam").iterdir()) == []


def test_the_same_rows_rejected_for_the_same_reasons(workdirs: Workdirs) -> None:
    local, other = (pq.read_table(workdir / "rejected.parquet") for workdir in workdirs)
    assert local.num_rows > 0
    assert other.equals(local)


def test_the_same_counts(workdirs: Workdirs) -> None:
    local, other = (read_json(workdir / "cleaning.json") for workdir in workdirs)
    assert other == local
    assert list(other["rejected"]) == list(local["rejected"])


def test_the_same_tokens_at_the_same_places(workdirs: Workdirs) -> None:
    local, other = preparing.load(workdirs.local), preparing.load(workdirs.beam)
    for name in SPLITS:
        ours, theirs = other.tokens(name), local.tokens(name)
        everything = range(len(theirs))
        assert len(ours) == len(theirs) == len(local.lengths[name])
        for place, (one, two) in enumerate(
            zip(ours.__getitems__(everything), theirs.__getitems__(everything), strict=True)
        ):
            assert one["row"] == two["row"] == place
            assert (one["label"], one["query_length"]) == (two["label"], two["query_length"])
            np.testing.assert_array_equal(one["input_ids"], two["input_ids"])


def test_every_rule_is_met(synthetic_workdirs: Workdirs) -> None:
    """The compared data has rows that each rule about a pair and about a query rejects."""
    rejected = read_json(synthetic_workdirs.beam / "cleaning.json")["rejected"]
    for rule in (
        "missing_title", "title_too_long", "label_outside_scale", "exact_duplicate",
        "conflicting_labels", "query_in_test", "query_in_validation", "query_fills_max_length",
        "unparsable_line",
    ):  # fmt: skip
        assert rejected[rule] > 0, rule


def test_nothing_else_is_left(synthetic_workdirs: Workdirs) -> None:
    ours, theirs = (
        {path.name for folder in (workdir, workdir / "data") for path in folder.iterdir()}
        for workdir in (synthetic_workdirs.beam, synthetic_workdirs.local)
    )
    assert ours == theirs
    kept = pq.read_table(synthetic_workdirs.beam / "data" / "catalogue.parquet").to_pylist()
    assert kept == [{"item_id": "x", "title": "a lamp", "text": ""}]


def test_folds_are_refused(tokenizer_folder: str, tmp_path: Path) -> None:
    data = DataConfig(test_folds=3)
    with pytest.raises(UserError, match=r"^data\.test_folds is 3, and Beam makes no folds: leave"):
        beam.store(
            synthetic.read(queries=20, items_per_query=2),
            None,
            tmp_path / "run",
            rules=data.rules,
            encoding=data.encoding(tokenizer_folder),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"example_id": "7"}, "example_id '7' occurs .* times"),
        ({"query_id": "7"}, "query_id '7' is that of '.*' and of '.*': give every query its own"),
        ({"query": "red shoes"}, "would have no query: prepare so few"),
        ({"label": "Q"}, "the labels found are Q: correct them"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_source_that_cannot_be_used_is_named_and_leaves_nothing(
    tmp_path: Path, tokenizer_folder: str, changed: dict[str, str], message: str
) -> None:
    source = synthetic.read(queries=10, items_per_query=2, dirt=0.0)
    filled_in = source.table
    for name, value in changed.items():
        filled = pa.array([value] * filled_in.num_rows, pa.string())
        filled_in = filled_in.set_column(filled_in.column_names.index(name), name, filled)
    source = dataclasses.replace(source, table=filled_in)
    found = parts(source, tmp_path, 100)
    with pytest.raises(UserError, match=message):
        store(source, found, tmp_path / "beam", tokenizer_folder)
    assert list((tmp_path / "beam").iterdir()) == []
