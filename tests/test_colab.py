"""docs/colab.ipynb runs from top to bottom, here on a CPU."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

import sie_jax

ROOT = Path(sie_jax.__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "colab.ipynb"


def test_it_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes most of the time
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "Warning" not in texts
    assert "CpuDevice" in texts
    assert "on cpu: loss" in texts
    kinds = [set(output.get("data", ())) for output in outputs]
    assert any("text/markdown" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)
    assert any("image/png" in kind for kind in kinds)
    (table,) = (
        output["data"]["text/markdown"]
        for output in outputs
        if "text/markdown" in output.get("data", ())
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{metrics['test']['uniform']['ndcg@10']['value']:.3f} [" in table
    metrics = json.loads((tmp_path / "run-listwise" / "metrics.json").read_text())
    assert "accuracy" not in metrics["test"]["uniform"]
    assert "ndcg@10" in metrics["difference"]["weighted"]
