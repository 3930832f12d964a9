"""The log of each training run, and the log that is drawn together from all of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sie_jax import processes
from sie_jax.files import whole
from sie_jax.training.tracking import Tracker


class MetricsLog:
    """The log of one run, metrics.jsonl: one line per report; `trackers` are told too.

    What no two runs have alike, times and memory, is in speed.jsonl beside it. Of several processes
    the first one writes.
    """

    def __init__(self, path: Path, trackers: Sequence[Tracker] = ()) -> None:
        self._path, self._speed = path, path.with_name("speed.jsonl")
        self._trackers = trackers

    def rewind(self, run: str, step: int) -> None:
        """Drops the lines after `step`, which a resumed run writes again, and damaged ones."""
        if not processes.first():
            return
        for tracker in self._trackers:
            tracker.start(run, step)
        for path in (self._path, self._speed):
            if path.exists():
                kept = [record for record in read(path) if record["step"] <= step]
                with whole(path) as temporary:
                    text = "".join(f"{json.dumps(record)}\n" for record in kept)
                    temporary.write_text(text, encoding="utf-8")

    def write(self, run: str, step: int, **values: float) -> None:
        """Appends one line to metrics.jsonl."""
        self._append(self._path, run, step, values)

    def write_speed(self, run: str, step: int, **values: float) -> None:
        """Appends one line to speed.jsonl."""
        self._append(self._speed, run, step, values)

    def _append(self, path: Path, run: str, step: int, values: dict[str, float]) -> None:
        if not processes.first():
            return
        for tracker in self._trackers:
            tracker.write(run, step, values)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "step": step, **values}) + "\n")


def draw_together(runs: Sequence[Path], folder: Path, say: Callable[[str], None]) -> None:
    """Leaves in `folder` metrics.jsonl and speed.jsonl with the lines of all runs, run after run.

    runs: the folders that hold the logs of single runs. A line that is no record is left out, and
    `say` is told of it.
    """
    for name in ("metrics.jsonl", "speed.jsonl"):
        drawn = ""
        for path in (run / name for run in runs):
            records, broken = _records(path)
            drawn += "".join(f"{json.dumps(record)}\n" for record in records)
            if broken:
                say(f"{path}: {broken} lines are damaged and left out")
        file = folder / name
        if not file.exists() or file.read_bytes() != drawn.encode():
            with whole(file) as temporary:
                temporary.write_text(drawn, encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a log, oldest first; none where there is no log."""
    return _records(path)[0]


def _records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a log, and how many lines are none."""
    if not path.exists():
        return [], 0
    records, broken = [], 0
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
            records.append({"run": record.pop("run"), "step": record.pop("step"), **record})
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            broken += 1
    return records, broken
