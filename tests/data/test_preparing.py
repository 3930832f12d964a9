import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data import builders, preparing
from sie_jax.data.schema import CATALOGUE_SCHEMA, SPLITS
from sie_jax.data.sources import synthetic
from sie_jax.errors import UserError

MAX_LENGTH = 16  # so short that some queries fill it


def select(seed: int = 0) -> preparing.Selection:
    source = synthetic.read(queries=60, items_per_query=5, noise=0.3, dirt=0.2, seed=seed)
    return preparing.select(source, select_rules())


def select_rules() -> preparing.Rules:
    return preparing.Rules(
        max_query_characters=512, max_title_characters=2000, validation=0.1, test=0.2, seed=0
    )


def store(workdir: Path, **changed: Any) -> None:
    options: dict[str, Any] = {
        "tokenizer_folder": "",
        "vocabulary_size": 150,
        "item_text": False,
        "max_length": MAX_LENGTH,
        "buckets": 2,
    }
    selection = changed.pop("selection", None) or select()
    keep_catalogue = changed.pop("keep_catalogue", False)
    encoding = preparing.Encoding(**{**options, **changed})
    preparing.store(selection, workdir, encoding, keep_catalogue=keep_catalogue)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workdir")
    store(path)
    return path


@pytest.fixture(scope="module")
def prepared(workdir: Path) -> preparing.Prepared:
    return preparing.load(workdir)


def test_every_row_read_is_kept_or_rejected(workdir: Path, prepared: preparing.Prepared) -> None:
    counts = json.loads((workdir / "cleaning.json").read_text())
    rejected = pq.read_table(workdir / "rejected.parquet")
    read = synthetic.read(queries=60, items_per_query=5, noise=0.3, dirt=0.2).table
    assert counts["read"] == read.num_rows == counts["kept"] + rejected.num_rows
    assert counts["kept"] == prepared.pairs.num_rows == sum(counts["splits"].values())
    assert sum(counts["rejected"].values()) == rejected.num_rows
    for rule, number in counts["rejected"].items():
        assert rejected["reason"].to_pylist().count(rule) == number
    assert counts["rejected"]["query_fills_max_length"] > 0
    assert len([number for number in counts["rejected"].values() if number]) > 3
    assert prepared.counts == counts


def test_splits_share_no_query(prepared: preparing.Prepared) -> None:
    queries = [set(prepared.split(name)["query"].to_pylist()) for name in SPLITS]
    assert all(queries)
    assert sum(map(len, queries)) == len(set.union(*queries))


def test_tokens_lie_in_the_order_of_the_pairs(prepared: preparing.Prepared) -> None:
    tokenizer = prepared.tokenizer
    for name in SPLITS:
        pairs, tokens = prepared.split(name).to_pylist(), prepared.tokens(name)
        assert len(tokens) == len(pairs) == len(prepared.lengths[name])
        for i, pair in enumerate(pairs):
            record = tokens[i]
            wanted = tokenizer(pair["query"], pair["title"], truncation=True, max_length=MAX_LENGTH)
            assert record["input_ids"].tolist() == wanted["input_ids"]
            assert record["query_length"] == wanted["token_type_ids"].index(1)
            assert record["label"] == pair["label"]
            assert prepared.lengths[name][i] == len(record["input_ids"]) == pair["length"]


def test_training_cannot_see_the_truth(workdir: Path, prepared: preparing.Prepared) -> None:
    training = prepared.split("train")
    wrong = (training["label"].to_numpy() != training["truth"].to_numpy()).sum()
    assert wrong > 0  # there is a truth to hide
    assert set(prepared.tokens("train")[0]) == {"row", "input_ids", "query_length", "label"}
    for path in (workdir / "data" / "tokens").rglob("*"):
        assert path.is_dir() or b"truth" not in path.read_bytes()


def test_the_vocabulary_is_of_training_texts_alone(prepared: preparing.Prepared) -> None:
    training = prepared.split("train")
    texts = training["query"].to_pylist() + training["title"].to_pylist()
    seen = set("".join(texts).lower())
    letters = {token.removeprefix("##") for token in prepared.tokenizer.get_vocab()}
    assert {letter for letter in letters if len(letter) == 1} <= seen | {"#"}


def test_buckets_take_every_row(prepared: preparing.Prepared) -> None:
    longest = max(lengths.max() for lengths in prepared.lengths.values())
    assert longest <= prepared.boundaries[-1] <= MAX_LENGTH


def test_the_same_source_gives_the_same_files(workdir: Path, tmp_path: Path) -> None:
    store(tmp_path)
    for name in ("cleaning.json", "data/prepared.json", "data/tokenizer/tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes()
    ours, theirs = preparing.load(tmp_path), preparing.load(workdir)
    assert ours.pairs.equals(theirs.pairs)
    for name in SPLITS:
        np.testing.assert_array_equal(ours.lengths[name], theirs.lengths[name])


@pytest.mark.parametrize(
    ("pattern", "damage", "reason"),
    [
        ("*train.array_record*", Path.unlink, "it is missing"),
        ("*train.array_record*", lambda path: os.truncate(path, 70_000), "70000 bytes of 131072"),
        ("tokenizer.json", Path.unlink, "it is missing"),
        ("prepared.json", lambda path: path.write_text("{"), "Expecting property name.*"),
        (
            "pairs.parquet",
            lambda path: path.write_bytes(path.stat().st_size * b"x"),
            ".*not a parquet file.*",
        ),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(
    workdir: Path, tmp_path: Path, pattern: str, damage: Any, reason: str
) -> None:
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (path,) = (copy / "data").rglob(pattern)
    damage(path)
    with pytest.raises(UserError) as caught:
        preparing.load(copy)
    assert re.fullmatch(
        rf"{path} cannot be read \({reason}\): restore it, or rerun the same "
        "command, which makes it again from the source",
        str(caught.value),
    )


def test_item_text_is_appended(tmp_path: Path) -> None:
    store(tmp_path, item_text=True, max_length=64)
    prepared = preparing.load(tmp_path)
    pair = prepared.split("train").to_pylist()[0]
    wanted = prepared.tokenizer(pair["query"], f"{pair['title']} {pair['text']}".strip())
    assert prepared.tokens("train")[0]["input_ids"].tolist() == wanted["input_ids"]


def test_a_tokenizer_folder_is_used_as_it_is(workdir: Path, tmp_path: Path) -> None:
    folder = workdir / "data" / "tokenizer"
    store(tmp_path, tokenizer_folder=str(folder), vocabulary_size=100)
    theirs = preparing.load(workdir).tokenizer
    assert preparing.load(tmp_path).tokenizer.get_vocab() == theirs.get_vocab()


def test_nothing_is_left_of_a_store_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = builders.write

    def full(folder: Path, splits: Any) -> None:
        write(folder, splits)
        raise OSError("disk full")

    monkeypatch.setattr(builders, "write", full)
    with pytest.raises(OSError, match="disk full"):
        store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    store(tmp_path)
    assert preparing.load(tmp_path).pairs.num_rows > 0


def test_a_split_without_rows_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row is left in .*: raise data\.max_length"):
        store(tmp_path, max_length=4)
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_is_kept_where_it_is_asked_for(workdir: Path, tmp_path: Path) -> None:
    catalogue = pa.table(
        {"item_id": ["x"], "title": ["  a <b>lamp</b>"], "text": [None]}, schema=CATALOGUE_SCHEMA
    )
    chosen = select()
    chosen = chosen._replace(source=dataclasses.replace(chosen.source, catalogue=catalogue))
    store(tmp_path, selection=chosen, keep_catalogue=True)
    kept = pq.read_table(tmp_path / "data" / "catalogue.parquet").to_pylist()
    assert kept == [{"item_id": "x", "title": "a lamp", "text": ""}]
    assert not (workdir / "data" / "catalogue.parquet").exists()


def test_numbers_are_kept_and_missing_ones_counted(workdir: Path, tmp_path: Path) -> None:
    source = synthetic.read(queries=60, items_per_query=5, noise=0.3, dirt=0.2)
    rows = source.table.num_rows
    price = [None if row % 3 == 0 else row / 4 for row in range(rows)]
    today = [float("nan") if row % 7 == 0 else float(-row) for row in range(rows)]
    table = source.table.append_column("numeric:price", pa.array(price, pa.float64()))
    table = table.append_column("current", pa.array(today, pa.float64()))
    source = dataclasses.replace(source, table=table)
    store(tmp_path, selection=preparing.select(source, select_rules()))
    plain, mine = preparing.load(workdir), preparing.load(tmp_path)
    names = plain.pairs.column_names
    assert mine.pairs.select(names).equals(plain.pairs)  # numbers change nothing else
    place = {one: at for at, one in enumerate(source.table["example_id"].to_pylist())}
    kept = [place[one] for one in mine.pairs["example_id"].to_pylist()]
    assert mine.pairs["numeric:price"].to_pylist() == [price[at] for at in kept]
    missing = {
        "numeric:price": sum(at % 3 == 0 for at in kept),
        "current": sum(at % 7 == 0 for at in kept),
    }
    assert mine.counts == {**plain.counts, "missing": missing}
    assert "missing" not in plain.counts
