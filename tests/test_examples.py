"""The example files are what their script makes, and what is shown on them runs."""

import gzip
import importlib
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from running import ROOT

from sie_jax.commands import flags, main
from sie_jax.data import cleaning
from sie_jax.evaluation import audit
from sie_jax.files import write_json

EXAMPLES = ROOT / "examples"


def test_the_tables_are_what_the_script_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(EXAMPLES)
    make = importlib.import_module("make")
    monkeypatch.setattr(make, "HERE", tmp_path)
    make.main()
    assert (tmp_path / "pairs.csv").read_bytes() == (EXAMPLES / "pairs.csv").read_bytes()
    made, kept = (
        gzip.decompress((folder / "clicks.csv.gz").read_bytes()) for folder in (tmp_path, EXAMPLES)
    )
    assert made == kept
    table = pa.csv.read_csv(EXAMPLES / "pairs.csv")
    assert table.column_names == ["query", "title", "brand", "label"]


def test_the_gradients_of_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "gradients.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "example   loss   norm   with the update"
    norms = [float(line.split()[2]) for line in said[1:4]]
    assert norms == sorted(norms, reverse=True)


def test_the_commands_of_the_page_on_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page has them, but that nothing is trained: both tables are read for it."""
    page = (ROOT / "docs" / "audit_my_labels.md").read_text(encoding="utf-8")
    train, apply, again, rank = map(shlex.split, re.findall(r"^sie-jax .*$", page, re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "examples"):
        Path(name).symlink_to(ROOT / name)
    (table,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    Path("predictions.csv").write_text(table)
    assert main.entry(rank) == 0
    assert audit.read(Path("audit.csv"), most=1)[0]["title"] == "garden hose"

    given = flags.parse(train[1:])
    given.config.check()
    source = given.config.data.read()
    kept = cleaning.clean(
        source.table, source.scale, max_query_characters=500, max_title_characters=500
    ).kept
    data = Path(given.workdir) / "data"
    data.mkdir(parents=True)
    lengths = pa.array(np.ones(kept.num_rows, np.int32))
    pq.write_table(kept.append_column("length", lengths), data / "pairs.parquet")
    write_json(data / "prepared.json", {"labels": list(source.scale.names)})
    first, right = kept["example_id"][0].as_py(), source.scale.names[3 - kept["label"][0].as_py()]
    Path("audit.corrections.csv").write_text(f"example_id,corrected_label\n{first},{right}\n")
    assert main.entry(apply) == 0
    given = flags.parse(again[1:])
    given.config.check()
    corrected = given.config.data.read().table
    assert corrected.num_rows == kept.num_rows
    assert corrected["label"][0].as_py() == right
    assert not Path(given.workdir).exists()
