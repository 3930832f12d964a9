"""The kinds of inputs of `fuzz.py`: sound files, what changes them, and what reads them."""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from flax import nnx
from rich.console import Console
from safetensors.numpy import load_file, save_file
from transformers import BertConfig

from sie_jax import serving
from sie_jax.commands import audit, predict, process
from sie_jax.commands.flags import Command, parse
from sie_jax.config import Config, as_json
from sie_jax.data import features, lexical, tokenization, translation
from sie_jax.data.sources import table as own_table
from sie_jax.files import digests, write_json
from sie_jax.models import PairClassifier, Towers
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import Ranker
from sie_jax.recipes import relevance
from sie_jax.sections import flat
from sie_jax.serving import Settings
from sie_jax.serving.scoring import described
from sie_jax.workdir import Workdir

FIELDS = flat(as_json(Config()))
"""Every field of a ranking config by its dotted name, with its default; a list for a tuple."""

ROOT = Path(__file__).parents[1]
TABLES = ("pairs.csv", "pairs.tsv", "pairs.jsonl", "pairs.parquet")
FLAGS = ("--redo=x", "--redo", "--config", "x", "--", "--workdir", "--config.train.x=1", "-h=")
# what some fields of a config may hold
WORDS = (
    *("auto", "listwise", "pairwise", "contrastive", "masked", "online", "learned", "sampling"),
    *("loss", "grad_norm", "proportional", "bfloat16", "clicks", "esci", "synthetic", "label"),
)
Draw = random.Random
Entry = Callable[[list[str]], int]


class Kind(NamedTuple):
    """A kind of inputs.

    words: the real command. change: changes the sound files in a folder, gives the flags and says
    what was changed. output: what is there after an exit code of 0, if the command leaves anything.
    """

    inputs: int
    commands: int
    entry: Entry
    words: Sequence[str]
    change: Callable[[Draw, Path], tuple[list[str], str]]
    output: str = ""


def sound(folder: Path) -> None:
    """Writes the sound files: tables, corrections, two models and a config."""
    rows = [
        {
            "example_id": f"e{number}",
            "query_id": f"q{number // 3}",
            "item_id": f"i{number}",
            "query": f"red lamp {number // 3}",
            "title": f"lamp number {number}, red",
            "text": f"a lamp of {number} cm",
            "label": str(number % 2),
            "split": ("train", "train", "validation", "test")[number // 3 % 4],
            "probability_0": 0.25 + number % 3 / 4,
            "probability_1": 0.75 - number % 3 / 4,
        }
        for number in range(24)
    ]
    table = pa.Table.from_pylist(rows)
    pa.csv.write_csv(table, folder / "pairs.csv")
    pa.csv.write_csv(table, folder / "pairs.tsv", pa.csv.WriteOptions(delimiter="\t"))
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(table, folder / "pairs.parquet")
    audit.entry(["", *_audit("pairs.csv")])
    corrected = (folder / "audit.csv").read_text().splitlines()
    lines = [line + ("", "0", "1")[at % 3] for at, line in enumerate(corrected[1:])]
    for left in [*folder.glob("audit.*"), *folder.glob(".audit.*")]:
        left.unlink()
    (folder / "corrections.csv").write_text("\n".join([corrected[0], *lines, ""]))
    queries, titles = table["query"].to_pylist(), table["title"].to_pylist()
    tokenizer = tokenization.train([*queries, *titles], vocabulary_size=120)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        id2label={0: "0", 1: "1"},
        label2id={"0": 0, "1": 1},
    )
    for name in ("model", "stack"):
        model = folder / name
        PairClassifier(config, num_labels=2, rngs=nnx.Rngs(0)).save_pretrained(model)
        tokenization.save(tokenizer, model, max_length=32)
        Settings((0.0, 1.0), 32).write(model)
    Ranker("encoder", "uniform").save(folder / "model")
    Towers(config, max_length=32, rngs=nnx.Rngs(0)).save_pretrained(model / "checkpoint")
    tokenization.save(tokenizer, model / "checkpoint", max_length=32)
    counted = lexical.count(titles)
    lexical.CorpusStatistics(counted, counted).save(model / "corpus.parquet")
    gains = np.arange(24) % 2 + 0.0
    translation.learn(queries, titles, gains).save(model / "translation.parquet")
    names = (*features.LEXICAL, features.FEEDBACK, features.COSINE)
    stacked = (*names, "run:linear", "run:translation", "run:uniform")
    Ranker(
        "stack",
        "uniform",
        linear=LinearRanker(names, (0.1,) * len(names), 1.0),
        stack=LinearRanker(stacked, (0.1,) * len(stacked), 1.0),
        encoders={"run:uniform": "."},
        checkpoint="checkpoint",
        translation="translation.parquet",
        text=True,
        corpus="corpus.parquet",
    ).save(model)
    _shard(model / "checkpoint")
    _write_config(folder, {})
    checked_and_prepared(["", *_train("pairs.csv")])
    columns = {name: name for name in ("example_id", "query", "title", "text")}
    settings = {**Settings((0.0, 1.0), 32)._asdict(), "gains": [0.0, 1.0]}
    job: dict[str, Any] = {"model": digests(folder / "model")}
    job |= {
        "pairs": digests(folder / "pairs.csv"),
        "encoder_alone": False,
        "columns": columns,
        "settings": settings,
        "batch_size": 64,
    }
    jobs, output = folder / "jobs", folder / "scored.parquet"
    write_json(jobs / "job.json", job)
    scorer = serving.load(folder / "model")
    part = described(scorer, list(own_table.rows(str(folder / "pairs.csv"), columns=columns)))
    pq.write_table(part, jobs / "part-000000.parquet")
    predict.entry(["", *_predict("model", "pairs.csv")])
    output.rename(jobs / output.name)
    made = output.with_name(f".{output.name}.made.json")
    made.rename(jobs / made.name)


def _shard(folder: Path) -> None:
    """Stores a model's tensors in two files, and its tokenizer as a list of words."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"shard-{at % 2}.safetensors" for at, name in enumerate(sorted(tensors))}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in shards if shards[name] == shard}, folder / shard)
    write_json(folder / "model.safetensors.index.json", {"weight_map": shards})
    words = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))


def _write_config(folder: Path, fields: dict[str, Any]) -> None:
    smallest = {
        "data.source": "table",
        "data.columns.example_id": "example_id",
        "data.columns.split": "split",
        "data.vocabulary_size": 120,
        "model.hidden_size": 8,
        "model.num_hidden_layers": 1,
        "model.num_attention_heads": 2,
        "model.intermediate_size": 8,
        "train.batch_size": 8,
    }
    lines = [
        "from math import inf, nan",
        "from sie_jax.config import Config",
        "def get_config():",
        '    config = Config(name="tiny")',
        *(f"    config.{name} = {value!r}" for name, value in (smallest | fields).items()),
        "    return config",
    ]
    (folder / "tiny.py").write_text("\n".join(lines), errors="replace")


def _predict(model: str, table: str) -> list[str]:
    flags = [f"--model={model}", f"--input={table}", "--output=scored.parquet", "--text=text"]
    return [*flags, *_ids("example_id")]


def _audit(table: str) -> list[str]:
    flags = [f"--pairs={table}", "--labels=0,1", "--output=audit.csv"]
    return [*flags, *_ids("example_id", "query_id", "item_id", "split")]


def _apply(pairs: str) -> list[str]:
    flags = [f"--pairs={pairs}", "--apply=corrections.csv", "--labels=0,1"]
    return [*flags, "--output=corrected.csv", *_ids("example_id")]


def _train(table: str) -> list[str]:
    return ["--config=tiny.py", f"--config.data.path={table}", "--workdir=run"]


def _ids(*fields: str) -> list[str]:
    return [f"--{field}={field}" for field in fields]


def _model(name: str) -> Callable[[Draw, Path], tuple[list[str], str]]:
    def change(draw: Draw, folder: Path) -> tuple[list[str], str]:
        files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        said = mutations.file(draw, draw.choice(files))
        return _predict(name, "pairs.csv"), said

    return change


def _scored_table(draw: Draw, folder: Path) -> tuple[list[str], str]:
    name = draw.choice(TABLES)
    return _predict("model", name), mutations.file(draw, folder / name)


def _judged_table(draw: Draw, folder: Path) -> tuple[list[str], str]:
    name = draw.choice(TABLES)
    return _audit(name), mutations.file(draw, folder / name)


def _corrections(draw: Draw, folder: Path) -> tuple[list[str], str]:
    return _apply("pairs.csv"), mutations.file(draw, folder / "corrections.csv")


def _run_to_correct(draw: Draw, folder: Path) -> tuple[list[str], str]:
    name = draw.choice(("pairs.parquet", "prepared.json"))
    return _apply("run"), mutations.file(draw, folder / "run" / "data" / name)


def _workdir(draw: Draw, folder: Path) -> tuple[list[str], str]:
    """What a finished stage left."""
    files = sorted(path for path in (folder / "run").rglob("*") if path.is_file())
    return _train("pairs.csv"), mutations.file(draw, draw.choice(files))


def _jobs(draw: Draw, folder: Path) -> tuple[list[str], str]:
    """What a stopped or finished prediction left."""
    flags = _predict("model", "pairs.csv")
    jobs, parts = folder / "jobs", folder / "scored.parquet.parts"
    parts.mkdir()
    for path in jobs.iterdir():
        path.rename((folder if "scored" in path.name else parts) / path.name)
    of_parts, made = sorted(parts.iterdir()), folder / ".scored.parquet.made.json"
    path = draw.choice((*of_parts, *of_parts, made))
    return flags, mutations.file(draw, path)


def _training_table(draw: Draw, folder: Path) -> tuple[list[str], str]:
    name = draw.choice(TABLES)
    shutil.rmtree(folder / "run")
    return _train(name), mutations.file(draw, folder / name)


def _config(draw: Draw, folder: Path) -> tuple[list[str], str]:
    flags = _train("pairs.csv")
    shutil.rmtree(folder / "run")
    kind = draw.randrange(4)
    fields = draw.sample(sorted(FIELDS), draw.choice((1, 1, 2, 4)))
    odd = {name: mutations.odd(draw, FIELDS[name]) for name in fields}
    words = [name for name in fields if isinstance(FIELDS[name], str) and draw.random() < 0.5]
    odd |= {name: draw.choice(WORDS) for name in words}
    if kind == 0:
        return flags, mutations.file(draw, folder / "tiny.py")
    if kind == 1:
        given = [f"--config.{name}={value}" for name, value in odd.items()]
        # no shell can give these to a command
        given = [one.replace("\0", "").encode(errors="replace").decode() for one in given]
        given += [draw.choice(FLAGS)] if draw.random() < 0.2 else []
        return [*flags, *given], f"flags: {', '.join(given)[:200]}"
    _write_config(folder, odd)
    return flags, f"tiny.py: {repr(odd)[:200]}"


@contextlib.contextmanager
def _opened(argv: list[str]) -> Iterator[tuple[Command, Workdir]]:
    """The workdir of a command line of train.py, after all its checks."""
    given = parse(argv)
    assert isinstance(given.config, Config)
    quiet = Console(file=io.StringIO())
    with relevance.opened(given.config, given.workdir, redo=given.redo, console=quiet) as workdir:
        yield given, workdir


@process.command
def _checked(argv: list[str]) -> None:
    with _opened(argv):
        pass


@process.command
def checked_and_prepared(argv: list[str]) -> None:
    """A run's checks and its stage `prepare`."""
    with _opened(argv) as (given, workdir):
        assert isinstance(given.config, Config)
        relevance.prepared(given.config, workdir)


PREDICT, AUDIT = ("-m", "sie_jax.predict"), ("-m", "sie_jax.audit")
TRAIN = (str(ROOT / "train.py"),)
KINDS = {
    "encoders": Kind(600, 20, predict.entry, PREDICT, _model("model"), "scored.parquet"),
    "stacks": Kind(500, 15, predict.entry, PREDICT, _model("stack"), "scored.parquet"),
    "tables to score": Kind(300, 10, predict.entry, PREDICT, _scored_table, "scored.parquet"),
    "jobs": Kind(300, 15, predict.entry, PREDICT, _jobs),
    "judged tables": Kind(600, 15, audit.entry, AUDIT, _judged_table, "audit.csv"),
    "corrections": Kind(400, 10, audit.entry, AUDIT, _corrections, "corrected.csv"),
    "runs to correct": Kind(200, 5, audit.entry, AUDIT, _run_to_correct, "corrected.csv"),
    "workdirs": Kind(200, 0, checked_and_prepared, TRAIN, _workdir),
    "tables to train on": Kind(400, 5, checked_and_prepared, TRAIN, _training_table),
    "configs": Kind(500, 5, _checked, TRAIN, _config),
}
