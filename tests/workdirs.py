"""Reads what a run leaves in its workdir, and compares two of them to the last bit."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sie_jax.files import read_json


def steps(workdir: Path, run: str) -> list[int]:
    """The steps of a run's checkpoints that are whole."""
    found = (workdir / "checkpoints" / run / "steps").glob("*/_CHECKPOINT_METADATA")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


def lines(workdir: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def times(folder: Path) -> dict[str, int]:
    """The time of the last change of every path below a folder."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def markers(workdir: Path) -> dict[str, int]:
    """Every stage that is done, by name, and when its marker was written."""
    folder = workdir / "stages"
    files = sorted(path for path in folder.rglob("*.json") if read_json(path)["done"])
    names = [str(path.relative_to(folder).with_suffix("")) for path in files]
    return {name: path.stat().st_mtime_ns for name, path in zip(names, files, strict=True)}


def made_since(workdir: Path, before: dict[str, int]) -> set[str]:
    """The stages that were made since `markers` gave `before`."""
    return {name for name, at in markers(workdir).items() if before.get(name) != at}


def costs(workdir: Path, stage: str) -> dict[str, dict[str, Any]]:
    """What each entry of a stage cost, by its name."""
    entries: dict[str, dict[str, Any]] = read_json(workdir / "stages" / f"{stage}.json")["cost"]
    return entries


def measured(workdir: Path) -> dict[str, Any]:
    """The content of metrics.json without the seconds."""
    metrics = read_json(workdir / "metrics.json")
    for cost in metrics["cost"].values():
        del cost["seconds"]
    metrics.get("pretraining", {}).pop("seconds", None)
    return metrics


def assert_same_results(workdir: Path, wanted: Path) -> None:
    """Compares everything that a run measures, except seconds."""
    assert measured(workdir) == measured(wanted)
    for name in ("metrics.jsonl", "model/model.safetensors", "audit.csv"):
        assert (workdir / name).read_bytes() == (wanted / name).read_bytes(), name
    tables = [pq.read_table(folder / "importance.parquet") for folder in (workdir, wanted)]
    assert tables[0].equals(tables[1])
