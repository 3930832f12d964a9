"""The command line: exit codes, the one line a bad input gets, and what it leaves on disk."""

import csv
import html.parser
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import workdirs
from running import BEGUN, ENVIRONMENT, TRAIN, Commands, Done, config_text
from safetensors.numpy import load_file, save_file

from sie_jax import serving
from sie_jax.data import tokenization
from sie_jax.data.sources import esci, table
from sie_jax.evaluation import corrections
from sie_jax.files import read_json

EIGHT_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
FIELDS = {
    "data.synthetic.queries": 8,
    "data.synthetic.items_per_query": 8,
    "data.max_length": 32,
}
TINY = config_text(FIELDS)


class Cli:
    """Runs command lines to their end, the current folder being an empty one."""

    def __init__(self, commands: Commands) -> None:
        self.commands, self.config = commands, commands.config
        self.folder = commands.folder / "empty"
        self.folder.mkdir()

    def __call__(self, *flags: str, environment: dict[str, str] | None = None) -> Done:
        with self.commands.started(*flags, environment=environment, folder=self.folder) as process:
            return process.done()

    def refused(self, *flags: str, environment: dict[str, str] | None = None) -> str:
        """The one line of a command line that must end with 2 and write nothing at all."""
        done = self(*flags, environment=environment)
        assert done.code == 2, done
        assert re.fullmatch(r"error: [^\n]+\n", done.err), done.err
        # its data may be at fault, which the first stage reads; a workdir of other settings is told
        said = rf"{BEGUN}(.* was made with .*, and now has .*\n)?(stage 1 of \d+: prepare.*\n)*"
        assert re.fullmatch(said, done.out), done.out
        assert list(self.folder.iterdir()) == []
        print(done.err)  # pytest -rP shows all lines
        return done.err


@pytest.fixture(scope="module")
def cli(tmp_path_factory, forks):
    return Cli(Commands(tmp_path_factory.mktemp("cli"), forks, FIELDS))


# ------------------------------------------------------------------------------- the input's files


def judgments(queries: int = 6, **columns: list[Any]) -> dict[str, list[Any]]:
    """Four judged items for each query; the last query of all is the test split."""
    rows = 4 * queries
    query = [row // 4 for row in range(rows)]
    table: dict[str, list[Any]] = {
        "example_id": list(range(rows)),
        "query": [f"query {i}" for i in query],
        "query_id": query,
        "product_id": [f"p{row}" for row in range(rows)],
        "product_locale": ["us"] * rows,
        "esci_label": list("ISCE") * queries,
        "small_version": [1] * rows,
        "large_version": [1] * rows,
        "split": ["test" if i == queries - 1 and i else "train" for i in query],
    }
    return table | columns


def write_esci(
    folder: Path, examples: dict[str, list[Any]], titles: list[str] | None = None
) -> str:
    """Writes the two files of the official layout and gives the flag that selects them."""
    ids = examples["product_id"]
    products = {
        "product_id": ids,
        "product_locale": ["us"] * len(ids),
        "product_title": titles or [f"title {i}" for i in ids],
        "product_description": [None] * len(ids),
        "product_bullet_point": [None] * len(ids),
    }
    folder.mkdir()
    texts = [name for name in (*examples, *products) if name in esci._PRODUCT_COLUMNS.columns]
    texts += ["query", "esci_label", "split"]
    for name, columns in ((esci.EXAMPLES, examples), (esci.PRODUCTS, products)):
        kinds = {column: pa.string() if column in texts else pa.int64() for column in columns}
        pq.write_table(pa.table(columns, schema=pa.schema(kinds.items())), folder / name)
    return f"--config.data.path={folder}"


ESCI = "--config.data.source=esci"


def write_checkpoint(folder: Path, *, bert_alone: bool = False) -> str:
    """Writes a tiny cross-encoder with its tokenizer and gives the flag that selects it."""
    checkpoints.write(folder, ["query title lamp 0 1 2"])
    if bert_alone:
        tensors = load_file(folder / "model.safetensors")
        kept = {k: v for k, v in tensors.items() if "pooler" not in k and "classifier" not in k}
        kept["bert.embeddings.position_ids"] = np.arange(64)[None]
        kept["cls.predictions.bias"] = np.zeros(3, np.float32)
        save_file(kept, folder / "model.safetensors")
    return f"--config.model.pretrained={folder}"


# ------------------------------------------------------------------------------- flags and fields


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], ["--config is missing", "--config=configs/quickstart.py"]),
        (["--workdir=w"], ["--config is missing"]),
        (["--config=none.py"], ["--config=none.py: no such file"]),
        (["--config=none.py", "--config.train.epochs=1"], ["--config=none.py: no such file"]),
        (["--config"], ["Missing value for flag --config"]),
        (["TINY", "--confg=x"], ["--confg is not a flag", "--workdir"]),
        (["TINY", "stray"], ["'stray' is not a flag"]),
        (
            ["TINY", "--config.train.batchsize=3"],
            ["no field 'train.batchsize';", "mean train.batch_size?"],
        ),
        (["TINY", "--config.train=3"], ["there is no field 'train';", "train.batch_size or"]),
        (["TINY", "--config.zzz.qqq=3"], ["there is no field 'zzz.qqq';", "--help"]),
        (["TINY", "--config.train.batch_size=abc"], ["--config.train.batch_size=abc:", "int"]),
        (["TINY", "--config.train.batch_size=1.5"], ["--config.train.batch_size=1.5:", "int"]),
        (["TINY", "--config.train.learning_rate=fast"], ["learning_rate=fast:", "float"]),
        (["TINY", "--config.data.item_text=maybe"], ["--config.data.item_text=maybe:", "bool"]),
        (["TINY", "--config.train.learning_rate=-1"], ["train.learning_rate is -1.0", "than 0"]),
        (["TINY", "--config.train.learning_rate=nan"], ["train.learning_rate is nan"]),
        (["TINY", "--config.train.batch_size=0"], ["train.batch_size is 0", "at least 1"]),
        (["TINY", "--config.importance.policy=best"], ["importance.policy is 'best'", "clipped"]),
        (["TINY", "--config.name="], ["name is empty"]),
        (["TINY", "--config.data.source=web"], ["data.source is 'web'", "esci"]),
        (["TINY", "--config.data.source=esci"], ["data.path is empty", "files of esci"]),
        (["TINY", "--config.data.source=wands"], ["data.path is empty", "files of wands"]),
        (["TINY", "--config.data.gains=0,1"], ["data.gains", "I, C, S, E", "one gain for each"]),
        (["TINY", "--config.data.gains=0,1,a,2"], ["data.gains is '0,1,a,2'"]),
        (["TINY", "--config.data.gains=1,0,0,0"], ["data.gains", "give gains that rise"]),
        (["TINY", "--config.data.synthetic.queries=1"], ["queries is 1"]),
        (["TINY", "--config.data.source=table"], ["data.path is empty"]),
        (["TINY", "--config.train.folds=1"], ["train.folds is 1", "at least 2"]),
        (["TINY", "--config.train.folds=99"], ["train.folds: 99 folds of", "queries"]),
        (["TINY", "--config.importance.keep_fraction=0"], ["importance.keep_fraction is 0"]),
        (
            ["TINY", "--config.importance.drop_hardest=0.95"],
            ["drop_easiest is 1.05", "less than 1"],
        ),
        (["TINY", "--config.mesh.data=0"], ["mesh.data is 0"]),
        (["TINY", "--config.mesh.data=2"], ["mesh.data 2", "there are 1 devices"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_bad_flag_gets_one_line(cli, flags, parts):
    line = cli.refused(*(cli.config if flag == "TINY" else flag for flag in flags))
    for part in parts:
        assert part in line


def test_the_mesh_must_divide_the_batch_and_have_its_devices(cli):
    line = cli.refused(cli.config, "--config.train.batch_size=12", environment=EIGHT_DEVICES)
    assert "train.batch_size 12 does not divide over mesh.data × mesh.fsdp, 8 devices" in line
    assert "such as 16" in line
    line = cli.refused(cli.config, "--config.mesh.data=9", environment=EIGHT_DEVICES)
    assert "need 9 devices, but there are 8 devices" in line


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("def get_config(:", r"SyntaxError: invalid syntax \(c.py, line 1\)"),
        ("def get_config():\n    return 1 / 0", r"c.py, line 2: ZeroDivisionError"),
        ("import nothing_of_that_name", r"c.py, line 1: ModuleNotFoundError"),
        ("x = 1", r"get_config that returns sie_jax.config.Config"),
        ("def get_config():\n    return {}", r"get_config that returns sie_jax.config.Config"),
        (
            f"{TINY}\n_get = get_config\ndef get_config():\n    _get().train.batchsize = 3",
            r"line \d+: AttributeError: .*batchsize",
        ),
        (
            f"{TINY}\n_get = get_config\ndef get_config():\n"
            "    config = _get()\n    config.train.epochs = '3'\n    return config",
            r"train.epochs is '3': give a value of type int",
        ),
    ],
    ids=["syntax", "raises", "import", "without", "another", "unknown", "type"],
)
def test_a_bad_config_file_gets_one_line(cli, tmp_path, code, part):
    file = tmp_path / "c.py"
    file.write_text(code)
    assert re.search(part, cli.refused(f"--config={file}"))


def test_help_lists_every_field(cli):
    done = cli("--help")
    assert (done.code, done.err) == (0, "")
    shown = ("--config=FILE ", "--workdir=FOLDER ", "--redo=STAGE ", "--replay=FILE ")
    for flag in (*shown, "--config.train.batch_size=32", "--config.data.path="):
        assert flag in done.out


# --------------------------------------------------------------------------------------- the data


def test_a_missing_file_or_column_gets_one_line(cli, tmp_path):
    line = cli.refused(cli.config, ESCI, f"--config.data.path={tmp_path / 'none'}")
    assert "none' does not exist" in line
    assert esci.EXAMPLES in line

    path = write_esci(tmp_path / "short", judgments())
    for name in (esci.PRODUCTS, esci.EXAMPLES):
        (tmp_path / "short" / name).unlink()
        assert f"{name} is missing" in cli.refused(cli.config, ESCI, path)

    examples = judgments()
    del examples["esci_label"]
    line = cli.refused(cli.config, ESCI, write_esci(tmp_path / "unlabelled", examples))
    assert f"{esci.EXAMPLES} has no column 'esci_label'; it has example_id, query," in line

    path = write_esci(tmp_path / "numbers", judgments())
    file = tmp_path / "numbers" / esci.EXAMPLES
    table = pq.read_table(file)
    at = table.column_names.index("product_id")
    pq.write_table(table.set_column(at, "product_id", table["example_id"]), file)
    line = cli.refused(cli.config, ESCI, path)
    assert f"{tmp_path / 'numbers'}: a column has another type than in the official files" in line
    assert "(product_id is int64)" in line

    path = write_esci(tmp_path / "torn", judgments())
    (tmp_path / "torn" / esci.EXAMPLES).write_bytes(b"PAR1 and no more")
    assert f"{esci.EXAMPLES} cannot be read as Parquet" in cli.refused(cli.config, ESCI, path)


@pytest.mark.parametrize(
    ("examples", "parts"),
    [
        (judgments(0), [esci.EXAMPLES, "no judgments of locale 'us'", "large: none"]),
        (judgments(product_locale=["jp"] * 24), ["no judgments of locale 'us'", "jp (24)"]),
        (judgments(esci_label=["relevant"] * 24), ["I, C, S, E", "labels found are relevant"]),
        (judgments(1), ["splitting: 1 query in 4 rows", "rows of more queries"]),
        (judgments(2), ["too few for train and validation", "rows of more queries"]),
        (judgments(query=["long " * 40 + str(i // 4) for i in range(24)]), ["data.max_length"]),
        (judgments(example_id=[7] * 24), ["example_id '7' occurs 24 times"]),
    ],
    ids=["empty", "locale", "labels", "one query", "two queries", "long queries", "ids"],
)
def test_data_that_cannot_be_used_gets_one_line(cli, tmp_path, examples, parts):
    path = write_esci(tmp_path / "shop", examples)
    line = cli.refused(cli.config, ESCI, path)
    for part in (str(tmp_path / "shop"), *parts):
        assert part in line


# --------------------------------------------------------------------------------- the checkpoint


def change_json(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["columns.title=name"], ["no column 'name'; it has query, title, label, note"]),
        (["table.attributes=brand"], ["no column 'brand'"]),
        (
            ["table.labels=bad,good"],
            ["no row's label is on the scale bad, good", "found are 0, 1: correct them, or name"],
        ),
        (["columns.label=note"], ["there are x (60): name the scale with --config.data.table"]),
        (
            ["table.raters=note"],
            ["rater column note has x, none of which is on the scale 0, 1: leave it out of"],
        ),
        (["gains=0,1,2"], ["data.gains, for the labels 0, 1", "one gain for each"]),
        (["features=price"], ["no column 'price'; it has query, title, label, note"]),
        (["features=note"], ["pairs.csv, line 2: the column 'note' holds 'x', which is not a"]),
        (["columns.current=note"], ["pairs.csv, line 2: the column 'note' holds 'x'"]),
        (["features=note,phrase"], ["data.features names phrase", "rename the column"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_table_that_does_not_fit_its_mapping_gets_one_line(cli, tmp_path, flags, parts):
    rows = [f"lamp {i // 3},lamp no {i},{i % 2},x" for i in range(60)]
    (tmp_path / "pairs.csv").write_text("\n".join(["query,title,label,note", *rows]))
    table = ["--config.data.source=table", f"--config.data.path={tmp_path / 'pairs.csv'}"]
    line = cli.refused(cli.config, *table, *(f"--config.data.{flag}" for flag in flags))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "a.csv",
            b"query|title|label\na|b|0\n",
            ["a single field", "separate the fields by commas"],
        ),
        (
            "a.tsv",
            b"query\ttitle\tlabel\na,b,0\nc,d,1\n",
            ["2 lines and no row (2 wrong_field_count)", "a.tsv:2: separate", "tabs"],
        ),
        ("a.csv", "query,title,label\na,b,0\n".encode("utf-16"), ["is UTF-16: convert it to"]),
        (
            "a.csv",
            "query,title,label\nlampe,grün,0\n".encode("latin-1"),
            ["no row (1 not_utf8)", "a.csv:2: convert it to UTF-8"],
        ),
        (
            "a.jsonl",
            b'[{"query": "a", "title": "b", "label": 0},\n]\n',
            ["2 lines and no row (2 unparsable_line)", "a.jsonl:1: give one JSON object a line"],
        ),
        ("a.parquet", None, ["a.parquet cannot be read as Parquet", "again"]),
    ],
    ids=["header", "delimiter", "utf-16", "latin-1", "json", "truncated parquet"],
)
def test_a_table_that_cannot_be_read_gets_one_line(cli, tmp_path, name, content, parts):
    file = tmp_path / name
    if content is None:
        pq.write_table(pa.table({"query": ["a"], "title": ["b"], "label": [0]}), file)
        content = file.read_bytes()[:-10]
    file.write_bytes(content)
    line = cli.refused(cli.config, "--config.data.source=table", f"--config.data.path={file}")
    for part in (str(file), *parts):
        assert part in line


@pytest.mark.slow
def test_a_table_with_rows_of_every_fault_runs_and_keeps_each_with_its_place(cli, tmp_path):
    pair = {"query": "lamp", "title": "lamp no 0", "label": "good", "rating": "good"}
    rows = [
        {
            **pair,
            "query": f"lamp {i // 3}",
            "title": f"lamp no {i}",
            "label": ("bad", "good")[i % 2],
        }
        for i in range(60)
    ]
    lines = [json.dumps(row).encode() for row in rows]
    faults = {
        b'{"query": "lamp"': ("pairs.jsonl:61", "unparsable_line"),
        b'["lamp", "lamp no 0", "good"]': ("pairs.jsonl:62", "unparsable_line"),
        b'{"query": "Leuchte gr\xfcn"}': ("pairs.jsonl:63", "not_utf8"),
        json.dumps({**pair, "rating": "fair"}).encode(): ("63", "rater_outside_scale"),
        json.dumps({**pair, "label": "fair"}).encode(): ("64", "label_outside_scale"),
        json.dumps({**pair, "title": None}).encode(): ("65", "missing_title"),
        lines[0]: ("66", "exact_duplicate"),
    }
    (tmp_path / "pairs.jsonl").write_bytes(b"\n".join([*lines, *faults]))
    table = ["--config.data.source=table", f"--config.data.path={tmp_path / 'pairs.jsonl'}"]
    table += ["--config.data.table.labels=bad,good", "--config.data.table.raters=rating"]
    done = cli(cli.config, *table, f"--workdir={tmp_path / 'w'}")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "w" / "metrics.json").read_text())
    assert metrics["rows"] == {"read": 67, "kept": 60, "rejected": 7}
    bad = pq.read_table(tmp_path / "w" / "rejected.parquet", columns=["example_id", "reason"])
    assert {tuple(row.values()) for row in bad.to_pylist()} == set(faults.values())


@pytest.mark.slow
def test_a_table_runs_and_its_bad_lines_are_in_the_count(cli, tmp_path):
    rows = [f"lamp {i // 3},lamp no {i},{i % 2},b{i % 4},{i % 2}" for i in range(60)]
    header = "query,title,label,brand,rating"
    (tmp_path / "pairs.csv").write_text("\n".join([header, *rows, "lamp,too short", ""]))
    table = ["--config.data.source=table", f"--config.data.path={tmp_path / 'pairs.csv'}"]
    table += ["--config.data.table.attributes=brand", "--config.data.table.raters=rating"]
    done = cli(cli.config, *table, "--config.train.folds=2", f"--workdir={tmp_path / 'w'}")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "w" / "metrics.json").read_text())
    assert metrics["rows"] == {"read": 61, "kept": 60, "rejected": 1}
    (bad,) = pq.read_table(tmp_path / "w" / "rejected.parquet").to_pylist()
    assert (bad["reason"], bad["example_id"]) == ("wrong_field_count", "pairs.csv:62")
    brands = pq.read_table(tmp_path / "w" / "groups" / "brand.parquet")
    assert sorted(brands["group"].to_pylist()) == ["b0", "b1", "b2", "b3"]


@pytest.mark.slow
def test_wands_runs_and_groups_by_category(cli, tmp_path):
    grades = ("Irrelevant", "Partial", "Exact")
    queries = [f"{i}\tlamp {i}\tLamps" for i in range(20)]
    products = [
        f"{i}\tlamp no {i}\tLamps\tLighting / Shelf {i % 2} / Lamps\t\t\t" for i in range(60)
    ]
    labels = [f"{i}\t{i // 3}\t{i}\t{grades[i % 3]}" for i in range(60)]
    products_header = "product_id\tproduct_name\tproduct_class\tcategory hierarchy\t"
    products_header += "product_description\tproduct_features\trating_count"
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, lines in (
        ("query.csv", ["query_id\tquery\tquery_class", *queries]),
        ("product.csv", [products_header, *products]),
        ("label.csv", ["id\tquery_id\tproduct_id\tlabel", *labels, "60\t0\t99\tExact", "61\t0"]),
    ):
        (folder / name).write_text("\n".join([*lines, ""]))
    flags = ["--config.data.source=wands", f"--config.data.path={folder}"]
    done = cli(cli.config, *flags, f"--workdir={tmp_path / 'w'}")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "w" / "metrics.json").read_text())
    assert metrics["rows"] == {"read": 62, "kept": 60, "rejected": 2}
    bad = pq.read_table(tmp_path / "w" / "rejected.parquet")
    assert dict(zip(bad["example_id"].to_pylist(), bad["reason"].to_pylist(), strict=True)) == {
        "60": "missing_title",
        "label.csv:63": "wrong_field_count",
    }
    categories = pq.read_table(tmp_path / "w" / "groups" / "top_category.parquet")
    assert categories["group"].to_pylist() == ["Lighting"]

    (folder / "label.csv").unlink()
    line = cli.refused(cli.config, *flags)
    assert f"wands: label.csv is missing; {folder} holds product.csv, query.csv" in line


@pytest.mark.slow
def test_a_click_log_runs_and_its_counts_are_kept(cli, tmp_path):
    generator = np.random.default_rng(0)
    lines = ["session,search,item_id,title,position,click"]
    for session in range(1500):
        query = session % 20
        for position, item in enumerate(generator.permutation(6), 1):
            clicked = generator.random() < (0.6 / position if item < 3 else 0.1 / position)
            row = f"s{session},lamp {query},{query}-{item},lamp no {item}"
            lines.append(f"{row},{position},{int(clicked)}")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    log = ["--config.data.source=clicks", f"--config.data.path={tmp_path / 'log.csv'}"]
    line = cli.refused(cli.config, *log)
    assert "query" in line
    log.append("--config.data.columns.query=search")
    done = cli(cli.config, *log, f"--workdir={tmp_path / 'w'}")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "w" / "metrics.json").read_text())
    assert metrics["rows"] == {"read": 120, "kept": 120, "rejected": 0}  # 20 queries of 6 items
    summary = json.loads((tmp_path / "w" / "cleaning.json").read_text())["summary"]
    assert summary["impressions_read"] == 9000


def test_a_checkpoint_of_another_kind_gets_one_line(cli, tmp_path):
    pretrained = write_checkpoint(tmp_path / "c")

    change_json(tmp_path / "c" / "config.json", model_type="roberta")
    line = cli.refused(cli.config, pretrained)
    assert "config.json: model_type is 'roberta', only 'bert' can be read" in line

    change_json(tmp_path / "c" / "config.json", model_type="bert", vocab_size=6)
    assert "embeddings.word_embeddings.weight has shape" in cli.refused(cli.config, pretrained)
    change_json(tmp_path / "c" / "config.json", vocab_size=100)

    assert "no such folder" in cli.refused(
        cli.config, f"--config.model.pretrained={tmp_path / 'none'}"
    )


def test_all_tensors_at_fault_are_named_at_once(cli, tmp_path):
    pretrained = write_checkpoint(tmp_path / "c")
    file = tmp_path / "c" / "model.safetensors"
    tensors = load_file(file)
    layer = "bert.encoder.layer.0"
    del tensors[f"{layer}.attention.self.query.weight"], tensors[f"{layer}.output.dense.bias"]
    tensors[f"{layer}.intermediate.dense.bias"] = np.zeros(5, np.float32)
    save_file(tensors, file)
    line = cli.refused(cli.config, pretrained)
    for fault in (
        "attention.self.query.weight is missing",
        "output.dense.bias is missing",
        "intermediate.dense.bias has shape [5], expected [8]",
    ):
        assert f"encoder.layer.0.{fault}" in line


def test_only_safetensors_and_a_tokenizer_that_fits_are_read(cli, tmp_path):
    pretrained = write_checkpoint(tmp_path / "c")
    tensors = (tmp_path / "c" / "model.safetensors").rename(tmp_path / "aside")
    (tmp_path / "c" / "pytorch_model.bin").write_bytes(b"pickled")
    line = cli.refused(cli.config, pretrained)
    assert "pytorch_model.bin but no model.safetensors; convert it" in line
    tensors.rename(tmp_path / "c" / "model.safetensors")

    line = cli.refused(cli.config, pretrained, "--config.data.max_length=65")
    assert "data.max_length is 65" in line
    assert "has 64 positions" in line

    larger = tokenization.train(["more words than the other has"], vocabulary_size=100)
    larger.save_pretrained(tmp_path / "c")
    line = cli.refused(cli.config, pretrained)
    assert f"the tokenizer has {len(larger)} tokens" in line

    (tmp_path / "c" / "tokenizer.json").unlink()
    assert "no tokenizer.json and no vocab.txt" in cli.refused(cli.config, pretrained)


# ------------------------------------------------------------------------------------ whole runs

SCRIPT, LOADER = "<script>alert(1)</script>", "<script/src=//example.org/x.js></script/>"
HANDLER, FORMULA = '"><img/src=x/onerror=alert(2)>', "=cmd('calc')"


class Run(NamedTuple):
    """A finished run and the flags that made it."""

    flags: list[str]
    workdir: Path
    done: Done


def without_progress(err: str) -> str:
    """What remains of stderr without the line that tells every ten seconds how far training is."""
    return re.sub(r"^[\w-]+ +\d+/\d+ .*examples/s.*\n", "", err, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory):
    """A run from a bare BERT on rows whose texts attack whoever opens them."""
    folder = tmp_path_factory.mktemp("finished")
    titles = [f"{bad} lamp {i}" for i in range(6) for bad in (SCRIPT, LOADER, HANDLER, FORMULA)]
    queries = [f"{bad} {i // 4}" for i, bad in enumerate([LOADER] * 12 + ["+1+cmd()"] * 12)]
    flags = [
        cli.config,
        ESCI,
        write_esci(folder / "shop", judgments(query=queries), titles),
        write_checkpoint(folder / "[red]bert", bert_alone=True),
        "--config.data.max_length=64",
        f"--workdir={folder / 'work'}",
    ]
    return Run(flags, folder / "work", cli(*flags))


@pytest.mark.slow
def test_a_run_says_what_the_checkpoint_lacks_and_nothing_on_stderr(finished):
    assert finished.done.code == 0, finished.done
    assert without_progress(finished.done.err) == ""
    lines = finished.done.out.splitlines()
    folder = finished.workdir.parent / "[red]bert"
    assert lines[:2] == [BEGUN.rstrip("\n"), "stage 1 of 13: prepare"]
    assert lines[2] == (
        f"{folder}: initialised bert.pooler.dense.bias, bert.pooler.dense.weight, "
        "classifier.bias, classifier.weight"
    )
    assert lines[3] == f"{folder}: ignored bert.embeddings.position_ids, cls.predictions.bias"
    at = lines.index(f"Report: {finished.workdir / 'report.html'}")
    assert lines[at + 1] == "Next:"
    assert sum(line.startswith("    sie-jax ") for line in lines[at + 2 :]) == 3


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.slow
def test_its_encoder_predicts_what_the_run_measured(finished, tmp_path):
    work = finished.workdir
    pairs = work / "data" / "pairs.parquet"
    counts = serving.score_table(
        work / "model",
        serving.Pairs(str(pairs), {"query": "query", "title": "title"}),
        tmp_path / "scored.parquet",
        encoder_alone=True,
    )
    rows = pq.read_metadata(pairs).num_rows
    assert counts == (rows, {}, rows)
    split = np.array(pq.read_table(pairs, columns=["split"])["split"].to_pylist())
    scored = pq.read_table(tmp_path / "scored.parquet").filter(split == "test")
    run = read_json(work / "model" / "ranker.json")["run"]
    measured = pq.read_table(work / "predictions" / f"{run}-0.parquet")
    for i, name in enumerate(("I", "C", "S", "E")):
        # float32; batches are padded to other lengths
        np.testing.assert_allclose(
            scored[f"probability_{name}"], measured[f"probability_{i}"], rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_its_corrected_pairs_are_a_table_that_can_be_read(finished, tmp_path):
    with (finished.workdir / "audit.csv").open(encoding="utf-8", newline="") as file:
        first = next(row for row in csv.DictReader(file) if row["found_by"] == "model")
    other = "E" if first["label"] != "E" else "I"
    fixed = tmp_path / "fixed.csv"
    fixed.write_text(f"example_id,corrected_label\n{first['example_id']},{other}\n")
    output = tmp_path / "new.csv"
    counts = corrections.apply(fixed, str(finished.workdir), output)
    pairs = pq.read_table(finished.workdir / "data" / "pairs.parquet")
    torn = read_json(finished.workdir / "cleaning.json")["rejected"]["conflicting_labels"]
    assert counts == (pairs.num_rows + torn, 1, 0, {})
    names = {name: name for name in ("query", "title", "label", "example_id", "query_id", "split")}
    again = table.read(str(output), columns=names, labels=("I", "C", "S", "E")).table
    again = again.slice(0, pairs.num_rows)  # those with conflicting labels come behind them
    for name in ("example_id", "query_id", "query", "title", "split"):
        assert again[name].to_pylist() == pairs[name].to_pylist()
    expected = ["ICSE"[label] for label in pairs["label"].to_pylist()]
    expected[pairs["example_id"].to_pylist().index(first["example_id"])] = other
    assert again["label"].to_pylist() == expected


@pytest.mark.slow
def test_markup_in_texts_does_not_run_in_the_report(finished):
    page = (finished.workdir / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert not {"script", "img", "iframe", "link"} & tags.names
    assert not [name for name in tags.attributes if name.startswith("on")]
    # what cleaning leaves is shown, as text
    assert "&lt;script/src=//example.org/x.js&gt;" in page
    assert "&lt;img/src=x/onerror=alert(2)&gt;" in page
    assert "alert(1)" not in page


@pytest.mark.slow
def test_no_cell_of_the_audit_is_a_formula(finished):
    with (finished.workdir / "audit.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        for name in ("query", "title", "example_id", "query_id", "item_id"):
            assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert any(row["title"].startswith("'=cmd('calc') lamp") for row in rows)
    assert any(row["query"].startswith("'+1+cmd()") for row in rows)


@pytest.mark.slow
def test_the_same_command_again_repeats_nothing(cli, finished):
    before = workdirs.times(finished.workdir)
    done = cli(*finished.flags)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == finished.done.out.splitlines()[-1]
    assert workdirs.times(finished.workdir) == before


@pytest.mark.slow
def test_a_workdir_that_is_taken_gets_one_line(cli, finished, tmp_path):
    before = workdirs.times(finished.workdir)
    line = cli.refused(*finished.flags, "--config.train.epochs=2", "--config.name=other")
    assert f"stage score in {finished.workdir} was made with other settings" in line
    assert "(train.epochs 1, not 2)" in line
    assert "--redo=score " in line
    assert workdirs.times(finished.workdir) == before

    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        line = cli.refused(cli.config, f"--workdir={workdir}")
        assert f"{tmp_path / 'file'} is a file: give a folder with --workdir" in line

    (tmp_path / "data").mkdir()
    line = cli.refused(cli.config, f"--workdir={tmp_path}")
    assert "a folder data that no run made" in line

    (tmp_path / "config.json").write_text("{")
    line = cli.refused(cli.config, f"--workdir={tmp_path}")
    assert f"{tmp_path} was made by an older version of sie_jax: give another --workdir" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "data", "file"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_with_3_and_keeps_the_checkpoint(cli, tmp_path):
    workdir = tmp_path / "work"
    flags = (
        cli.config,
        f"--workdir={workdir}",
        "--config.train.learning_rate=1e30",
        "--config.train.warmup_fraction=0",
        "--config.train.checkpoint_every=1",
    )
    done = cli(*flags)
    assert done.code == 3, done
    found = re.fullmatch(
        r"error: run warmup: loss (?:nan|inf), gradient norm \S+ at step (\d+), "
        r"example ids ([\d, ]+): .*\n",
        without_progress(done.err),
    )
    assert found, done.err
    step, ids = int(found[1]), set(found[2].split(", "))
    pairs = pq.read_table(workdir / "data" / "pairs.parquet")
    assert ids <= set(pairs["example_id"].to_pylist())
    assert step > 1
    assert workdirs.steps(workdir, "warmup")[-1] == step - 1
    assert not (workdir / "metrics.json").exists()
    # the checkpoint is whole: the same command resumes from it, and meets the same step
    again = cli(*flags)
    assert (again.code, without_progress(again.err)) == (3, found[0])

    # and the batch can be looked at by itself
    (file,) = (workdir / "replay").iterdir()
    assert f"python train.py --replay={file}" in done.out
    replayed = cli(f"--replay={file}")
    assert replayed.code == 0, replayed
    said = rf"run warmup, the batch of step {step}, at the parameters after step {step - 1}: \d+ of"
    assert re.search(said, replayed.out)
    assert all(name in replayed.out for name in ("example_id", "grad_norm"))
    assert all(re.search(rf"│ {one} ", replayed.out) for one in ids)
    alone = cli(f"--replay={file}", cli.config)
    assert (alone.code, alone.err) == (
        2,
        "error: --replay takes no other flag: it reads the config in the run's workdir\n",
    )
    assert "give a file that a failed run left" in cli.refused("--replay=none.npz")


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_one_line(cli, tmp_path):
    workdir = tmp_path / "work"
    endless = ["--config.importance.warmup_epochs=5000", "--config.train.checkpoint_every=1"]
    with cli.commands.started(cli.config, f"--workdir={workdir}", *endless) as run:
        run.wait(lambda: bool(workdirs.steps(workdir, "warmup")))
        run.send(signal.SIGINT)
        code, _, err = run.done()
    assert code == 130, err
    assert without_progress(err) == "interrupted: rerun the same command to resume\n"


def test_a_bad_flag_ends_the_program_itself_with_2():
    """As a user starts it, with all imports."""
    command = [sys.executable, TRAIN, "--config=none.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    assert done.returncode == 2
    assert done.stdout.startswith(BEGUN)
    assert re.fullmatch(r"error: --config=none.py: no such file; [^\n]+\n", done.stderr)
