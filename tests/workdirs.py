"""Reads what a run leaves in its workdir, and compares two of them to the last bit."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sie_jax.files import read_json


def steps(workdir: Path, run: str) -> list[int]:
    """The steps of a run's checkpoints that are whole."""
    found = (workdir / "checkpoints" / run).glob("*/_CHECKPOINT_METADATA")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


def lines(workdir: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def times(folder: Path) -> dict[str, int]:
    """The time of the last change of every path below a folder."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def measured(workdir: Path) -> dict[str, Any]:
    """The content of metrics.json without the seconds."""
    metrics = read_json(workdir / "metrics.json")
    for cost in metrics["cost"].values():
        del cost["seconds"]
    return metrics


def assert_same_results(workdir: Path, wanted: Path) -> None:
    """Compares everything that a run measures, except seconds."""
    assert measured(workdir) == measured(wanted)
    for name in ("metrics.jsonl", "model/model.safetensors", "audit.csv"):
        assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
    tables = [pq.read_table(folder / "importance.parquet") for folder in (workdir, wanted)]
    assert tables[0].equals(tables[1])
