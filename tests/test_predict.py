"""Scores against the model called by hand, resuming, and what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from compiling import compile_quickly
from flax import nnx
from safetensors.numpy import load_file, save_file

from sie_jax import serving
from sie_jax.commands import predict
from sie_jax.data import tokenization
from sie_jax.errors import UserError
from sie_jax.models import FlaxBert, PairClassifier
from sie_jax.serving import Pairs, Settings
from sie_jax.serving import table as parts

__all__ = ["compile_quickly"]

LABELS, GAINS = ("bad", "fair", "good"), (0.0, 0.5, 2.0)
WORDS = ("red", "blue", "lamp", "shoe", "table", "chair")
MAX_LENGTH = 24


def build(folder: Path, *, item_text: bool = False) -> Path:
    checkpoints.write(
        folder,
        [*WORDS, "with light"],
        num_labels=3,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    Settings(GAINS, MAX_LENGTH, item_text, max_query_characters=60).write(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("predict") / "model")


def write_pairs(path: Path, rows: int = 10) -> list[tuple[str, str]]:
    generator = np.random.default_rng(0)
    made = []
    for _ in range(rows):
        query = " ".join(generator.choice(WORDS, generator.integers(1, 4)))
        made.append((query, " ".join(generator.choice(WORDS, generator.integers(1, 30)))))
    path.write_text("\n".join(["search,name", *(f"{query},{title}" for query, title in made), ""]))
    return made


COLUMNS = {"query": "search", "title": "name"}


def by_hand(folder: Path, query: str, item: str) -> np.ndarray:
    """softmax of the logits of [CLS] query [SEP] item [SEP], cut to MAX_LENGTH, unpadded."""
    model, _ = PairClassifier.from_pretrained(folder)
    tokenizer = tokenization.load(folder)
    first = [tokenizer.cls_token_id, *tokenizer(query, add_special_tokens=False)["input_ids"]]
    first += [tokenizer.sep_token_id]
    second = tokenizer(item, add_special_tokens=False)["input_ids"]
    second = [*second[: MAX_LENGTH - len(first) - 1], tokenizer.sep_token_id]
    segments = jnp.array([0] * len(first) + [1] * len(second))
    logits = jax.jit(model)(jnp.array(first + second), segments)
    return np.asarray(jax.nn.softmax(logits), np.float64)


def test_scores_are_those_of_the_model_called_by_hand(model: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.csv")
    counts = serving.score_table(
        model, Pairs(str(tmp_path / "pairs.csv"), COLUMNS), tmp_path / "scored.parquet"
    )
    assert counts == (10, {}, 10)
    table = pq.read_table(tmp_path / "scored.parquet")
    assert table["example_id"].to_pylist() == [str(i) for i in range(10)]
    for row, (query, title) in zip(table.to_pylist(), pairs, strict=True):
        expected = by_hand(model, query, title)
        assert (row["query"], row["title"]) == (query, title)
        found = [row[f"probability_{name}"] for name in LABELS]
        # float32; padding and batching change the order of sums
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert row["prediction"] == LABELS[int(np.argmax(expected))]
        assert row["score"] == pytest.approx(float(expected @ GAINS), rel=1e-5)
    assert not list(tmp_path.glob("*.parts")) + list(tmp_path.glob("*.rejected.parquet"))


def test_texts_are_repaired_and_joined_as_in_training(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", item_text=True)
    scorer = serving.load(folder)
    row = {"query": "  red&nbsp;lamp", "title": "<b>lamp</b>", "text": "with  light"}
    (found,) = serving.score(scorer, [{**row, "example_id": "a"}]).to_pylist()
    expected = by_hand(folder, "red lamp", "lamp with light")
    np.testing.assert_allclose(
        [found[f"probability_{name}"] for name in LABELS], expected, rtol=1e-5, atol=1e-6
    )
    assert found["query"] == row["query"]  # as given


def test_rows_read_are_rows_scored_and_rows_rejected(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "red lamp,lamp": None,
        ",lamp": "missing_query",
        "red lamp,<br>": "missing_title",
        f"{'x' * 61},lamp": "query_too_long",
        f"{'red ' * 14},lamp": None,
        f"{'r e d ' * 9},lamp": "query_fills_max_length",
        "red lamp": "wrong_field_count",
        "blue lamp,chair": None,
    }
    (tmp_path / "pairs.csv").write_text("\n".join(["search,name", *rows]))
    output = tmp_path / "scored.parquet"
    flags = [f"--model={model}", f"--input={tmp_path / 'pairs.csv'}", f"--output={output}"]
    assert predict.entry(["predict", *flags, "--query=search", "--title=name"]) == 0
    said = capsys.readouterr().out
    reasons = [reason for reason in rows.values() if reason]
    assert f"{len(rows) - len(reasons)} pairs scored" in said
    assert all(f"1 rows left out, {reason}" in said for reason in reasons)
    rejected = pq.read_table(output.with_suffix(".rejected.parquet"))
    assert rejected["reason"].to_pylist() == reasons
    assert pq.read_table(output)["example_id"].to_pylist() == ["0", "4", "7"]


def test_stopped_and_resumed_gives_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    pairs = tmp_path / "pairs.csv"
    write_pairs(pairs, rows=14)
    serving.score_table(model, Pairs(str(pairs), COLUMNS), tmp_path / "whole.parquet")

    real, calls = parts.described, []

    def stopping(*arguments: Any, **options: Any) -> pa.Table:
        calls.append(len(arguments[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(parts, "described", stopping)
    output = tmp_path / "stopped.parquet"
    with pytest.raises(KeyboardInterrupt):
        serving.score_table(model, Pairs(str(pairs), COLUMNS), output)
    assert not output.exists()
    counts = serving.score_table(model, Pairs(str(pairs), COLUMNS), output)
    assert counts.scored == 14
    assert calls == [4, 4, 4, 4, 2]  # the third again, the first two not
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_parts_of_another_job_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **options: Any) -> pa.Table:
        raise KeyboardInterrupt

    write_pairs(tmp_path / "pairs.csv")
    arguments = (Pairs(str(tmp_path / "pairs.csv"), COLUMNS), tmp_path / "scored.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(parts, "described", stop)
        with pytest.raises(KeyboardInterrupt):
            serving.score_table(model, *arguments)
    with pytest.raises(UserError, match="begun with another batch_size: remove it"):
        serving.score_table(model, *arguments, batch_size=8)
    write_pairs(tmp_path / "pairs.csv", rows=11)
    with pytest.raises(UserError, match="begun with another pairs: remove it"):
        serving.score_table(model, *arguments)


def score(model: Path, pairs: Path, output: Path, **options: Any) -> serving.Counts:
    return serving.score_table(model, Pairs(str(pairs), COLUMNS), output, **options)


def test_an_input_that_was_edited_is_noticed_whatever_its_size_and_times(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it was stopped, and while it was scored; then nothing is left in the way."""
    pairs, output = tmp_path / "pairs.csv", tmp_path / "scored.parquet"
    write_pairs(pairs)
    text, stat, real = pairs.read_text(), pairs.stat(), parts.described

    def edit(old: str, new: str) -> None:
        pairs.write_text(text.replace(old, new))
        os.utime(pairs, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def stopping(*given: Any, **options: Any) -> pa.Table:
        raise KeyboardInterrupt

    def edited(*given: Any, **options: Any) -> pa.Table:
        edit("blue", "lamp")
        return real(*given, **options)

    monkeypatch.setattr(parts, "described", stopping)
    with pytest.raises(KeyboardInterrupt):
        score(model, pairs, output)
    edit("lamp", "shoe")
    with pytest.raises(UserError, match="begun with another pairs: remove it"):
        score(model, pairs, output)
    edit("", "")
    monkeypatch.setattr(parts, "described", edited)
    with pytest.raises(UserError, match=r"pairs\.csv was changed while it was scored"):
        score(model, pairs, output)
    monkeypatch.setattr(parts, "described", real)
    assert score(model, pairs, output).scored == 10


def test_a_fault_in_a_late_row_is_found_first_and_leaves_nothing_in_the_way(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    pairs, output = tmp_path / "pairs.csv", tmp_path / "scored.parquet"
    write_pairs(pairs)
    with pairs.open("a") as file:
        file.write('red,"lamp\n')
    with monkeypatch.context() as patch:
        patch.setattr(parts, "described", None)  # nothing is scored before
        with pytest.raises(UserError, match="line 12"):
            score(model, pairs, output)
    assert sorted(tmp_path.iterdir()) == [pairs]
    pairs.write_text(pairs.read_text().rstrip() + '"\n')
    assert score(model, pairs, output).scored == 11


@pytest.mark.parametrize(
    "damage", ["{", "[1]", "", "[" * 100_000, '"text"', '{"parts": 5}', '{"parts": ["a"]}', None]
)
def test_a_damaged_job_is_named(model: Path, tmp_path: Path, damage: str | None) -> None:
    write_pairs(tmp_path / "pairs.csv")
    folder = tmp_path / "scored.parquet.parts"
    folder.mkdir()
    if damage is None:
        os.mkfifo(folder / parts.JOB)
    else:
        (folder / parts.JOB).write_text(damage)
    with pytest.raises(UserError, match=r"parts has a damaged job\.json .*: remove it, or give"):
        score(model, tmp_path / "pairs.csv", tmp_path / "scored.parquet")


@pytest.mark.parametrize("damage", ["cut", "columns", "values"])
def test_a_damaged_part_is_made_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    pairs, real, calls = tmp_path / "pairs.csv", parts.described, list[int]()
    write_pairs(pairs)
    score(model, pairs, tmp_path / "whole.parquet")

    def stopping(*given: Any, **options: Any) -> pa.Table:
        calls.append(len(given[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(parts, "described", stopping)
    output = tmp_path / "scored.parquet"
    with pytest.raises(KeyboardInterrupt):
        score(model, pairs, output)
    part = tmp_path / "scored.parquet.parts" / "part-000000.parquet"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-20])
    else:  # a whole table of as many rows
        table = pq.read_table(part)
        other = table.drop_columns("title")
        if damage == "values":
            rows = table.to_pylist()
            other = pa.Table.from_pylist([row | {"made:run:gain": 9.0} for row in rows])
        pq.write_table(other, part)
    (part.parent / ".part-000002.parquet.tmp").write_bytes(b"PAR1")  # of a process that was killed
    score(model, pairs, output)
    assert calls == [4, 4, 2, 4, 2]
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not part.parent.exists()


@pytest.mark.parametrize("kind", ["file", "link", "note", "folder"])
def test_parts_that_are_no_parts_stay(model: Path, tmp_path: Path, kind: str) -> None:
    write_pairs(tmp_path / "pairs.csv")
    folder = tmp_path / "scored.parquet.parts"
    if kind == "link":
        (tmp_path / "other").mkdir()
        folder.symlink_to(tmp_path / "other")
    elif kind == "file":
        folder.write_text("mine")
    elif kind == "folder":
        (folder / "part-000000.parquet").mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / "note.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is or holds what no prediction left"):
        score(model, tmp_path / "pairs.csv", tmp_path / "scored.parquet")
    assert sorted(tmp_path.rglob("*")) == before


def broken(model: Path, folder: Path, word: str = "") -> Path:
    """The model with weights of a word, or of all, whose sum is beyond float32."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    values = tensors[name].copy()
    place = tokenization.load(folder).convert_tokens_to_ids(word) if word else slice(None)
    values[place] = 3e38
    save_file(tensors | {name: values}, file)
    return folder


def test_a_score_that_is_not_finite_is_rejected_by_row(model: Path, tmp_path: Path) -> None:
    """A pair without the word keeps its score, to the last bit."""
    nan = broken(model, tmp_path / "nan", "shoe")
    pairs = [
        ("red", "lamp"),
        ("blue", "shoe"),
        ("red shoe", "lamp"),
        ("blue", "chair"),
        ("shoe", ""),
    ]
    lines = ["search,name", *(f"{query},{title}" for query, title in pairs), ""]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    counts = score(nan, tmp_path / "pairs.csv", tmp_path / "nan.parquet")
    assert counts == (2, {"score_not_finite": 2, "missing_title": 1}, 2)
    score(model, tmp_path / "pairs.csv", tmp_path / "all.parquet")
    kept = pq.read_table(tmp_path / "nan.parquet")
    assert kept.equals(pq.read_table(tmp_path / "all.parquet").take([0, 3]))
    rejected = pq.read_table(tmp_path / "nan.rejected.parquet")
    assert rejected["example_id"].to_pylist() == ["1", "2", "4"]
    rows = [{"query": query, "title": title} for query, title in pairs]
    found = serving.score(serving.load(nan), rows)
    broken_rows = ["score_not_finite"] * 2
    assert found["reason"].to_pylist() == [None, *broken_rows, None, "missing_title"]
    for name in ("score", "prediction", "probability_bad"):
        assert found[name].is_null().to_pylist() == [False, True, True, False, True]


def test_a_model_that_gives_nothing_finite_ends_with_3_and_is_not_in_the_way(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs.csv")
    output = tmp_path / "scored.parquet"
    nan = broken(model, tmp_path / "nan")
    flags = [f"--input={tmp_path / 'pairs.csv'}", f"--output={output}", "--query=search"]
    before = sorted(tmp_path.iterdir())
    assert predict.entry(["predict", f"--model={nan}", "--title=name", *flags]) == 3
    assert "gives no finite score for any of 10 rows: its weights" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert predict.entry(["predict", f"--model={model}", "--title=name", *flags]) == 0


def test_nothing_that_is_read_or_of_others_is_lost(model: Path, tmp_path: Path) -> None:
    """The inputs are what an earlier prediction left, which this command may replace otherwise."""
    pairs, output = tmp_path / "pairs.csv", tmp_path / "scored.parquet"
    pairs.write_text("search,name\nred,lamp\n,lamp\n")
    assert score(model, pairs, output) == (1, {"missing_query": 1}, 1)
    rejected = tmp_path / "scored.rejected.parquet"
    kept = {path: path.read_bytes() for path in (output, rejected, pairs)}
    columns = {"query": "query", "title": "title"}
    for read in (output, rejected):
        with pytest.raises(UserError, match="is read: give another --output"):
            serving.score_table(model, Pairs(str(read), columns), output)
    with pytest.raises(UserError, match=r"is read: give another --output"):
        score(model, pairs, model / "scored.parquet")
    table = pq.read_table(output)
    pq.write_table(table.append_column("mine", table["score"]), output)
    with pytest.raises(UserError, match=r"scored\.parquet is there and is not what this command"):
        score(model, pairs, output)
    assert "mine" in pq.read_schema(output).names
    output.write_bytes(kept[output])
    assert all(path.read_bytes() == content for path, content in kept.items())
    pairs.write_text("search,name\nred,lamp\n")
    assert score(model, pairs, output) == (1, {}, 1)
    assert not rejected.exists()  # of the earlier table


def test_one_query_against_a_catalogue_by_a_model_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cross-encoder with one logit and nothing of ours: no ranker.json, no sie_jax.json."""
    folder = checkpoints.write(tmp_path / "model", WORDS, num_labels=1, initializer_range=0.5)
    titles = ["lamp", "blue shoe", "", "red chair", "red lamp"]
    lines = [
        f'{{"sku": "s{n}", "title": "{title}", "price": {n}.5}}' for n, title in enumerate(titles)
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    output = tmp_path / "best.csv"
    flags = [f"--model={folder}", f"--items={tmp_path / 'items.jsonl'}", f"--output={output}"]
    assert predict.entry(["predict", *flags, "--query=red  lamp", "--item_id=sku", "--top=2"]) == 0
    said = capsys.readouterr()
    assert "has no sie_jax.json: 64 tokens are read at most" in said.err
    assert "4 pairs scored" in said.out
    assert "2 of them are written, the 2 best of each query" in said.out
    assert "1 rows left out, missing_title: see" in said.out
    model, _ = PairClassifier.from_pretrained(folder)
    tokenizer = tokenization.load(folder)
    texts = tokenizer(["red lamp"] * len(titles), titles, padding=True, return_tensors="np")
    inputs = [texts[name] for name in ("input_ids", "token_type_ids", "attention_mask")]
    values = np.asarray(jax.jit(model)(*inputs))[:, 0].tolist()
    logits = {f"s{number}": value for number, value in enumerate(values)}
    logits.pop("s2")
    expected = sorted(logits, key=lambda sku: -logits[sku])[:2]
    rows = pa.csv.read_csv(output).to_pylist()
    assert [(row["item_id"], row["rank"]) for row in rows] == [(expected[0], 1), (expected[1], 2)]
    for row in rows:
        # float32; padding and batching change the order of sums
        assert row["score"] == pytest.approx(logits[row["item_id"]], rel=1e-5, abs=1e-6)
        assert row["price"] == float(row["item_id"][1:]) + 0.5
        assert row["query"] == "red  lamp"


def test_titles_of_a_catalogue(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scores are those of a table that has the titles itself."""
    items = {"s1": "red lamp", "s2": "blue shoe"}
    pairs = [("red lamp", "s1"), ("red lamp", " s2 "), ("blue", "s1"), ("blue", "s9")]
    (tmp_path / "items.jsonl").write_text(
        "".join(f'{{"item_id": "{sku}", "name": "{name}"}}\n' for sku, name in items.items())
    )
    bare = "".join(f"{query},{sku},7\n" for query, sku in pairs)
    (tmp_path / "bare.csv").write_text("query,item_id,rank_today\n" + bare)
    whole = "".join(f"{query},{sku},7,{items.get(sku.strip(), '')}\n" for query, sku in pairs)
    (tmp_path / "whole.csv").write_text("query,item_id,rank_today,name\n" + whole)
    flags = ["--title=name", f"--model={model}"]
    for name, further in (("bare", [f"--items={tmp_path / 'items.jsonl'}"]), ("whole", [])):
        paths = [f"--input={tmp_path / name}.csv", f"--output={tmp_path / name}.parquet"]
        assert predict.entry(["predict", *flags, *paths, *further]) == 0
    said = capsys.readouterr()
    assert said.out.count("3 pairs scored") == said.out.count("1 rows left out, missing_title") == 2
    assert said.err.count("1 items of") == 1
    joined, own = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("bare", "whole"))
    assert joined.equals(own.select(joined.column_names))
    assert joined["title"].to_pylist() == ["red lamp", "blue shoe", "red lamp"]
    (tmp_path / "items.jsonl").write_text('{"item_id": "x", "name": "y"}\n')
    paths = [f"--input={tmp_path / 'bare.csv'}", f"--output={tmp_path / 'other.parquet'}"]
    assert predict.entry(["predict", *flags, *paths, f"--items={tmp_path / 'items.jsonl'}"]) == 2
    assert "error: --items: none of the 3 item ids of" in capsys.readouterr().err


def test_what_is_wrong_with_the_output_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the model nor the table is there."""
    theirs = tmp_path / "theirs.csv"
    theirs.write_text("mine")
    (tmp_path / "file").write_text("")
    for output, fault in (
        ("scored.txt", "give an --output that ends in .csv, .jsonl, .parquet"),
        ("theirs.csv", "is there and is not what this command left"),
        ("file/scored.csv", "a file stands where its folder would be"),
        ("none.csv", "is read: give another --output"),
    ):
        flags = [f"--{name}={tmp_path / 'none.csv'}" for name in ("model", "input")]
        assert predict.entry(["predict", *flags, f"--output={tmp_path / output}"]) == 2
        assert fault in capsys.readouterr().err
    assert theirs.read_text() == "mine"


def test_what_cannot_be_gets_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs.csv")
    (tmp_path / "empty.csv").write_text("search,name\n")
    given = {"model": model, "input": tmp_path / "pairs.csv", "output": tmp_path / "out.parquet"}
    given |= {"query": "search", "title": "name"}

    def refused(**changed: Any) -> str:
        flags = [f"--{name}={value}" for name, value in (given | changed).items()]
        assert predict.entry(["predict", *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "out.txt: give an --output that ends in .csv, .jsonl, .parquet" in refused(
        output="out.txt"
    )
    line = refused(title="title")
    assert line.endswith("no column 'title'; it has search, name: perhaps --title=name")
    assert "name it with --title=COLUMN" in refused(title="x")
    assert "--query is empty" in refused(query="")
    assert "--top=0: give a number of rows, 1 or more" in refused(top=0)
    line = refused(items=tmp_path / "pairs.csv")
    assert "no column 'item_id'; it has search, name: name it with --item_id=COLUMN" in line
    assert "does not exist" in refused(input=tmp_path / "none.csv")
    assert "empty.csv has no rows" in refused(input=tmp_path / "empty.csv")
    assert "none" in refused(model=tmp_path / "none")
    assert "numbers separated by commas" in refused(gains="a,b,c", max_length=16)
    assert "labels bad, fair, good" in refused(gains="0,1", max_length=16)
    assert "24 positions" in refused(gains="0,1,2", max_length=25)
    assert "--max_length=0" in refused(gains="0,1,2")
    for batch_size in (0, -8, 4097, 10**7):
        line = refused(batch_size=batch_size)
        assert f"--batch_size={batch_size}: give a number from 1 to 4096" in line
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a named pipe or a device" in refused(input=tmp_path / "pipe.csv")
    (tmp_path / "folder.parquet").mkdir()
    assert "folder.parquet is a folder" in refused(output=tmp_path / "folder.parquet")

    config = PairClassifier.from_pretrained(model)[0].config
    FlaxBert(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "encoder")
    assert "was not trained to classify" in refused(model=tmp_path / "encoder")
    PairClassifier.from_pretrained(model)[0].save_pretrained(tmp_path / "foreign")
    assert "no sie_jax.json" in refused(model=tmp_path / "foreign")
    other = tmp_path / "foreign" / "config.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"model_type": "roberta"}))
    line = refused(model=tmp_path / "foreign")
    assert f"{other}: model_type is 'roberta', only 'bert' can be read: give the" in line
    assert not list(tmp_path.glob("out.*"))  # no parts either
