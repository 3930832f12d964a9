"""A table's scores are of one model: whatever file of it changes is noticed."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pandas as pd
import pytest
from model_folders import by_features, shard
from safetensors.numpy import load_file, save_file

from sie_jax import serving
from sie_jax.commands import predict
from sie_jax.errors import UserError
from sie_jax.serving import Pairs, Settings, table


def test_a_shard_that_changed_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoints.write(tmp_path / "model", ["red lamp"], num_labels=2)
    file = model / shard(model)[1]
    (tmp_path / "pairs.csv").write_text("query,title\nred lamp,lamp\n")
    pairs = Pairs(str(tmp_path / "pairs.csv"), {"query": "query", "title": "title"})
    arguments = (model, pairs, tmp_path / "scored.parquet")
    options: dict[str, Any] = {"settings": Settings((0.0, 1.0), max_length=16)}

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "described", stop)
    with pytest.raises(KeyboardInterrupt):
        serving.score_table(*arguments, **options)
    tensors = load_file(file)
    save_file({name: value + np.float32(1) for name, value in tensors.items()}, file)
    with pytest.raises(UserError, match="begun with another model: remove it"):
        serving.score_table(*arguments, **options)


def test_lists_that_are_shorter_than_those_of_the_training_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One query against a catalogue, and a table; rows without a score do not count."""
    model = by_features(tmp_path / "model", {"low": 6, "median": 20})
    (tmp_path / "items.csv").write_text("item_id,title\n1,red lamp\n2,lamp\n")
    (tmp_path / "pairs.csv").write_text("query,title\na,a\na,b\na,\nb,a\nb,b\nb,c\n")
    output = f"--output={tmp_path / 'scored.csv'}"
    for flags, said in (
        (["--query=red lamp", f"--items={tmp_path / 'items.csv'}"], "1 of 1 queries has fewer"),
        ([f"--input={tmp_path / 'pairs.csv'}"], "1 of 2 queries has fewer than 3 items: this"),
    ):
        assert predict.entry(["predict", f"--model={model}", output, *flags]) == 0
        assert said in capsys.readouterr().err
    long = by_features(tmp_path / "long", {"low": 4, "median": 20})
    assert predict.entry(["predict", f"--model={long}", output, *flags]) == 0
    assert "fewer than" not in capsys.readouterr().err


def test_a_workdir_in_place_of_its_model_is_named(tmp_path: Path) -> None:
    pairs = Pairs("none.csv", {"query": "query", "title": "title"})
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "prepared.json").write_text("{}")
    with pytest.raises(UserError, match="run is the workdir of a run that has left no model yet"):
        serving.load(tmp_path / "run")
    by_features(tmp_path / "run" / "model", {})
    with pytest.raises(UserError, match=r"the workdir of a run: .* model, .*run/model"):
        serving.score_table(tmp_path / "run", pairs, tmp_path / "scored.csv")


def test_titles_of_either_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table's own where the catalogue has no such column; one of the two needs it."""
    model = by_features(tmp_path / "model", {})
    (tmp_path / "items.csv").write_text("item_id,brand\n1,Acme\n1,Acme\n")
    (tmp_path / "pairs.csv").write_text("query,item_id,title,desc\na,1,a b,c\na,2,b,d\n")
    names = {"input": "pairs.csv", "items": "items.csv", "output": "scored.csv"}
    files = [f"--{flag}={tmp_path / name}" for flag, name in names.items()]
    flags = ["predict", f"--model={model}", *files]
    assert predict.entry([*flags, "--text=desc"]) == 0
    assert pd.read_csv(tmp_path / "scored.csv")["title"].to_list() == ["a b", "b"]
    assert "items.csv: lines left out: 1 of an id that came before\n" in capsys.readouterr().err
    for wrong in ("--title=name", "--text=name"):
        assert predict.entry([*flags, wrong]) == 2
        assert "items.csv has no column 'name'" in capsys.readouterr().err


def test_a_prediction_is_not_resumed_with_another_catalogue_or_title(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = by_features(tmp_path / "model", {})
    (tmp_path / "items.csv").write_text("item_id,title,name\n1,red lamp,lamp\n")
    (tmp_path / "pairs.csv").write_text("query,item_id,title\nlamp,1,lamp\n")

    def score(title: str, items: str) -> None:
        columns = {"query": "query", "title": title}
        pairs = Pairs(str(tmp_path / "pairs.csv"), columns, items=items)
        serving.score_table(model, pairs, tmp_path / "scored.csv")

    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr(table, "described", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        score("title", str(tmp_path / "items.csv"))
    with pytest.raises(UserError, match="begun with another columns: remove it"):
        score("name", str(tmp_path / "items.csv"))
    with pytest.raises(UserError, match="begun with another items: remove it"):
        score("title", "")
    (tmp_path / "items.csv").write_text("item_id,title\n1,lamp\n")
    with pytest.raises(UserError, match="begun with another items: remove it"):
        score("title", str(tmp_path / "items.csv"))
