"""The example files are what their script makes, and the example of gradients runs."""

import gzip
import importlib
import runpy
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from running import ROOT

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
