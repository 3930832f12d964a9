"""Inputs on which the product once failed: $SIE_JAX_DATA/cases, each with what is right."""

import contextlib
import csv
import datetime
import json
import os
import shutil
from collections import Counter
from decimal import Decimal
from pathlib import Path

import checkpoints
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_runs
from transformers import AutoTokenizer

from sie_jax import serving
from sie_jax.commands import predict
from sie_jax.data import cleaning, sentences, tokenization
from sie_jax.data.schema import Source
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import esci, table, ubi
from sie_jax.data.sources.ubi import UbiConfig
from sie_jax.errors import UserError
from sie_jax.evaluation import corrections
from sie_jax.models.section import ModelConfig
from sie_jax.serving import Settings

CASES = Path(os.environ.get("SIE_JAX_DATA", "")) / "cases"
COLUMNS = {"query": "query", "title": "title", "label": "label"}
IDS = {"query_id": "query_id", "item_id": "item_id"}


def case(name: str) -> Path:
    if not (CASES / name).is_dir():
        pytest.skip(f"SIE_JAX_DATA names no folder with cases/{name}")
    return CASES / name


def clean(source: Source) -> cleaning.Cleaned:
    return cleaning.clean(
        source.table, source.scale, max_query_characters=99, max_title_characters=99
    )


def test_nan_is_missing() -> None:
    source = table.read(str(case("nan_jsonl") / "pairs.jsonl"), columns=COLUMNS | IDS)
    cleaned = clean(source)
    assert +Counter(cleaned.counts) == {"missing_title": 1}
    kept = cleaned.kept.select(["query", "query_id", "item_id"]).to_pylist()
    assert [row["query"] for row in kept] == ["garden hose", "wool socks", "tea pot"]
    assert (kept[0]["query_id"], kept[0]["item_id"]) == ("a", "p1")
    derived = [row[name] for row in kept[1:] for name in ("query_id", "item_id")]
    assert [one[0] for one in derived] == ["q", "i", "q", "i"]
    assert len(set(derived)) == 4


def test_a_missing_label_is_one_rejected_row(tmp_path: Path) -> None:
    lines = (case("nan_jsonl") / "pairs.jsonl").read_text().replace('"label":1', '"label":NaN', 1)
    (tmp_path / "pairs.jsonl").write_text(lines)
    source = table.read(str(tmp_path / "pairs.jsonl"), columns=COLUMNS | IDS)
    assert source.scale.names == ("0", "1")
    assert +Counter(clean(source).counts) == {"missing_title": 1, "label_outside_scale": 1}


def test_predict_rejects_what_is_missing(tmp_path: Path) -> None:
    encoder = sentences.load(checkpoints.write(tmp_path / "plain", ["steel kettle", "red kettle"]))
    sentences.save(encoder, tmp_path / "model")
    counts = serving.score_table(
        tmp_path / "model",
        serving.Pairs(
            str(case("nan_jsonl") / "predict.jsonl"), {"query": "query", "title": "title"}
        ),
        tmp_path / "scored.parquet",
        settings=Settings((0.0, 1.0), max_length=32),
    )
    assert counts == (1, {"missing_title": 1, "missing_query": 1}, 1)
    assert pq.read_table(tmp_path / "scored.parquet")["title"].to_pylist() == ["red kettle"]


def test_decimals_and_dates_are_read_and_written_as_they_are(tmp_path: Path) -> None:
    saved = pq.read_table(case("decimal_and_dates") / "labels.parquet")
    further = {
        "price": pa.array([Decimal("12.50")] * 4, pa.decimal128(8, 2)),
        "day": pa.array([datetime.date(2024, 5, 6)] * 4),
        "seen": pa.array([datetime.datetime(2024, 5, 6, 7, 8)] * 4, pa.timestamp("ns")),
    }
    for name, column in further.items():
        saved = saved.append_column(name, column)
    pq.write_table(saved, tmp_path / "labels.parquet")
    pairs = str(tmp_path / "labels.parquet")
    source = table.read(pairs, columns=COLUMNS, attributes=list(further))
    assert source.scale.names == ("0", "1", "2")
    assert clean(source).kept["label"].to_pylist() == [1, 0, 2, 1]
    (tmp_path / "audit.csv").write_text("example_id,corrected_label\n3,2\n")
    corrections.apply(
        tmp_path / "audit.csv",
        pairs,
        tmp_path / "corrected.csv",
        labels=source.scale.names,
        columns=COLUMNS,
    )
    with (tmp_path / "corrected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["1", "0", "2", "2"]
    for row in rows:
        assert (row["price"], row["day"]) == ("12.50", "2024-05-06")
        assert row["seen"] == "2024-05-06 07:08:00"


def test_quotes_between_tabs_are_ordinary_characters() -> None:
    source = table.read(str(case("tsv_quote") / "pairs.tsv"), columns=COLUMNS)
    assert source.unreadable.num_rows == 0
    assert source.table.select(["query", "title", "label"]).to_pylist() == [
        {"query": query, "title": title, "label": label}
        for query, title, label in (
            ("oak table", '"Classic oak table', "2"),
            ("oak table", "Pine table", "1"),
            ("oak table", "Glass vase", "0"),
            ("sofa", 'Sofa bed 55"', "2"),
            ("sofa", "Arm chair", "1"),
            ("sofa", "Lamp", "0"),
        )
    ]


@pytest.mark.parametrize("name", ["pairs.csv.gz", "pairs.ndjson"])
def test_compressed_files_and_other_endings(name: str) -> None:
    source = table.read(str(case("compressed") / name), columns=COLUMNS)
    assert source.unreadable.num_rows == 0
    assert source.table.select(list(COLUMNS)).to_pylist() == [
        {"query": "a", "title": title, "label": label} for title, label in (("b", "1"), ("c", "0"))
    ]


def test_files_of_esci_that_were_saved_again() -> None:
    plain = esci.read(str(case("esci_resaved") / "plain_control"))
    again = esci.read(str(CASES / "esci_resaved" / "large_string"))
    assert plain.table.num_rows == 8
    assert again.table.equals(plain.table)
    assert again.catalogue.equals(plain.catalogue)


def test_data_that_was_exchanged_is_noticed(tmp_path: Path) -> None:
    config = tiny_runs.tiny()
    config.data.source, config.data.path = "table", str(tmp_path / "data.csv")
    for name, known in (("before.csv", True), ("after.csv", False)):
        shutil.copyfile(case("stale_data") / name, tmp_path / "data.csv")
        told = contextlib.nullcontext() if known else pytest.raises(UserError, match="other inputs")
        with told, tiny_runs.opened(config, tmp_path / "run"):
            pass


def test_marks_of_letters_tell_words_apart() -> None:
    words = ["ガラス", "カラス", "año", "ano", "й", "и"]
    tokenizer = tokenization.train(words * 5, vocabulary_size=200)
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    assert len(set(map(tuple, ids))) == len(words)


def test_one_segment_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = case("one_segment_type")
    flags = [f"--model={folder / 'model'}", f"--input={folder / 'pairs.csv'}"]
    assert predict.entry(["predict", *flags, f"--output={tmp_path / 'out.parquet'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "type_vocab_size in the configuration is 1" in line
    assert not list(tmp_path.iterdir())
    section = ModelConfig(pretrained=str(folder / "model"))
    with pytest.raises(UserError, match="type_vocab_size"):
        section.classifier(("0", "1", "2"), vocabulary_size=176, max_length=32, seed=0)


def test_vocab_txt_options(tmp_path: Path) -> None:
    folder = shutil.copytree(case("vocab_txt_options") / "polish", tmp_path / "polish")
    tokenizer = tokenization.load(folder)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    assert tokenizer(" ".join(words[5:]), add_special_tokens=False)["input_ids"] == [
        *range(5, len(words))
    ]
    (folder / "config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(folder)
    pair = "Hułajnoga ŻE", "schön że 靴 hulajnoga"
    (found,) = tokenization.encode_pairs(
        tokenizer, *([text] for text in pair), max_length=64
    ).input_ids
    assert found.tolist() == theirs(*pair)["input_ids"]
    options = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(options | {"tokenizer_class": "HerbertTokenizer"})
    )
    with pytest.raises(UserError, match="tokenizer_class is HerbertTokenizer, and only Bert"):
        tokenization.load(folder)


def test_exported_max_length(tmp_path: Path) -> None:
    """What the case lacks is in a folder once its tokenizer is saved as every run saves it."""
    given = case("exported_max_length") / "model"
    settings, tokenizer = Settings.read(given), tokenization.load(given)
    folder = shutil.copytree(given, tmp_path / "model", copy_function=shutil.copyfile)
    folder.chmod(0o755)
    tokenization.save(tokenizer, folder, max_length=settings.max_length)
    outside = AutoTokenizer.from_pretrained(folder)
    assert (outside.model_max_length, outside.truncation_side) == (32, "right")
    generator = np.random.default_rng(0)
    words = ["steel", "kettle", "red", "green", "hose", "wool", "0", "1"]
    sizes = [(3, 40), (28, 40), (20, 12), (2, 3), (16, 16)]
    queries, titles = (
        [" ".join(generator.choice(words, size[place])) for size in sizes] for place in (0, 1)
    )
    scorer = serving.load(folder)
    encoded = tokenization.encode_pairs(
        scorer.tokenizer, queries, titles, max_length=scorer.settings.max_length
    )
    theirs = outside(queries, titles, truncation=True)
    assert [ids.tolist() for ids in encoded.input_ids] == theirs["input_ids"]
    assert max(map(len, theirs["input_ids"])) == 32


def test_judgment_lists(tmp_path: Path) -> None:
    folder = case("judgment_lists")
    (tmp_path / "queries.tsv").write_text("1\ttea pot\n")
    (tmp_path / "items.csv").write_text("item_id,title\n101,kettle\n102,mug\nd1,tea pot\n7,cup\n")
    data = DataConfig(source="judgments", path=str(folder / "ltr.txt"))
    data.items.path = str(tmp_path / "items.csv")
    found = data.read().table.select(["query", "item_id", "title", "label"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("tea pot", "101", "kettle", "3"),
        ("tea pot", "102", "mug", "0"),
    ]
    data.path, data.judgments.queries = str(folder / "qrels.tsv"), str(tmp_path / "queries.tsv")
    data.judgments.labels = ("0", "1", "2")
    source = data.read()
    assert source.table["label"].to_pylist() == ["2"]
    assert source.unreadable["reason"].to_pylist() == ["negative_grade"]
    data.source, data.path = "table", str(folder / "quepid.csv")
    data.columns.item_id, data.columns.label = "docid", "rating"
    data.table.labels = ("0", "1", "2", "3")
    cleaned = clean(data.read())
    assert cleaned.kept.select(["query", "title", "label"]).to_pylist() == [
        {"query": "tea pot", "title": "kettle", "label": 3},
        {"query": "mug", "title": "cup", "label": 0},
    ]
    assert +Counter(cleaned.counts) == {"label_outside_scale": 1}


def test_ubi_events_are_exposures() -> None:
    found = ubi.exposures(str(case("ubi_events") / "events.ndjson"), UbiConfig())
    rows = found.log.select(["query", "item_id", "title", "position", "click"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("red shoes", "A", "thing A", 1, 1),
        ("red shoes", "C", "thing C", 2, 0),
        ("red shoes", "B", "thing B", 3, 0),
        ("tea pot", "A", "thing A", 1, 1),
    ]
    assert not found.summary["repeated"] + sum(found.summary["left_out"].values())
