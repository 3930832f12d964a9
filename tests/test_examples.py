"""The example files are what their script makes, and what is shown on them runs."""

import gzip
import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from running import ROOT

from sie_jax.commands import flags, main
from sie_jax.evaluation import audit

EXAMPLES = ROOT / "examples"


def test_the_tables_are_what_the_script_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(EXAMPLES)
    make = importlib.import_module("make")
    monkeypatch.setattr(make, "HERE", tmp_path)
    make.write_pairs_and_clicks()
    assert (tmp_path / "pairs.csv").read_bytes() == (EXAMPLES / "pairs.csv").read_bytes()
    made, kept = (
        gzip.decompress((folder / "clicks.csv.gz").read_bytes()) for folder in (tmp_path, EXAMPLES)
    )
    assert made == kept
    table = pa.csv.read_csv(EXAMPLES / "pairs.csv")
    assert table.column_names == ["query", "title", "brand", "label"]
    # the probabilities are of trees, which are not fitted again here
    texts = pa.csv.ConvertOptions(column_types={"label": pa.string(), "true_label": pa.string()})
    audited = pa.csv.read_csv(EXAMPLES / "labels.csv", convert_options=texts)
    assert audited.select(audited.column_names[:4]).equals(make.labels())
    p = np.stack([audited[f"probability_{grade}"].to_numpy() for grade in range(4)], 1)
    np.testing.assert_allclose(p.sum(1), 1, atol=4 * 0.5e-4)  # rounded to four digits


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
    listed, applied, first, again, compare, own, *_ = map(
        shlex.split, re.findall(r"^sie-jax .*$", page, re.MULTILINE)
    )
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "examples"):
        Path(name).symlink_to(ROOT / name)
    assert main.entry(listed) == 0
    (count,) = re.findall(r"^python -c .*$", page, re.MULTILINE)
    found = subprocess.run([sys.executable, *shlex.split(count)[1:]], capture_output=True)
    # random ones would be about ten, and more than 30 of them once in 10⁸ times
    assert int(found.stdout) > 30
    (fill,) = re.findall(r"^sed .*$", page, re.MULTILINE)
    subprocess.run(fill, shell=True, check=True)
    assert main.entry(applied) == 0
    tables = []
    for command in (first, again):
        given = flags.parse(command[1:])
        given.config.check()
        tables.append(pa.csv.read_csv(given.config.data.path))
    before, after = ([str(one) for one in table["label"].to_pylist()] for table in tables)
    (truth, _) = ([str(one) for one in table["true_label"].to_pylist()] for table in tables)
    assert tables[1].column_names == ["example_id", *tables[0].column_names]
    changed = [
        (new, right) for old, new, right in zip(before, after, truth, strict=True) if old != new
    ]
    assert len(changed) > 60
    assert all(new == right for new, right in changed)
    assert compare[1:] == ["compare", *(flags.parse(one[1:]).workdir for one in (first, again))]

    (table,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    Path("predictions.csv").write_text(table)
    assert main.entry(own) == 0
    assert audit.read(Path("runs/mine.csv"), most=1)[0]["title"] == "garden hose"


@pytest.mark.parametrize("name", ["rank_my_table", "rank_from_clicks", "audit_my_labels"])
def test_the_pages_train_by_configs_that_are_accepted_and_write_below_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    commands = [shlex.split(one) for one in re.findall(r"^ *(sie-jax .*)$", page, re.MULTILINE)]
    training = [one for one in commands if one[1] == "train"]
    assert training
    made = set()
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "examples"):
        Path(folder).symlink_to(ROOT / folder)
    Path("runs").mkdir()
    for one in re.findall(r'^python -c "(.*group_by.*)"$', page, re.MULTILINE):
        exec(one)
    for command in training:
        given = flags.parse([one for one in command[1:] if one != "--dry-run"])
        given.config.check()
        made.add(given.workdir)
    for command in commands:
        for flag, _, value in (word.partition("=") for word in command):
            if flag == "--output":
                assert value.startswith("runs/")
            if flag == "--items":
                items = pa.csv.read_csv(value)
                assert len(items.group_by(items.column_names).aggregate([])) == len(items) > 100
            if flag == "--model":
                assert value.removesuffix("/model") in made


def test_the_list_loss_of_the_page_on_gradients() -> None:
    page = (ROOT / "docs" / "gradients_of_my_loss.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)

    def whole(params: Any) -> jax.Array:
        scores = jax.vmap(names["score"], in_axes=(None, 0))(params, names["items"])
        return names["list_loss"](scores, {}, names["relevant"])

    loss, gradient = jax.value_and_grad(whole)(names["params"])
    # float32 sums of 32 terms in another order
    np.testing.assert_allclose(names["loss"], loss, rtol=1e-5)
    total = names["found"].total()["w"]
    np.testing.assert_allclose(total, gradient["w"], rtol=1e-4, atol=1e-6)
    assert names["of_items"].shape == (32,)
    assert names["of_lists"].shape == (8,)
