"""What a run reports while it trains: its log, and a progress bar."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
        with whole(folder / name) as temporary, temporary.open("w", encoding="utf-8") as drawn:
            for path in (run / name for run in runs):
                records, broken = _records(path)
                drawn.writelines(f"{json.dumps(record)}\n" for record in records)
                if broken:
                    say(f"{path}: {broken} lines are damaged and left out")


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
        except (ValueError, TypeError, AttributeError, KeyError):
            broken += 1
    return records, broken


class Bar:
    """A bar with examples/s, padding share and time left; a line every ten seconds elsewhere."""

    def __init__(self, label: str, total: int, console: Console, done: int = 0) -> None:
        self._label, self._total, self._console = label, total, console
        self._done, self._rows, self._slots, self._tokens = done, 0, 0, 0
        self._started = self._said = time.perf_counter()
        self._progress = Progress(
            TextColumn(f"{label:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and processes.first()),
        )
        self._task = self._progress.add_task(label, total=total, completed=done, note="")
        self._progress.start()

    def advance(self, batch: dict[str, Any], note: str = "") -> None:
        """One batch more: its mask and attention_mask give the rows and the padding."""
        self._done += 1
        self._rows += int(batch["mask"].sum())
        self._slots += batch["attention_mask"].size
        self._tokens += int((batch["attention_mask"] & batch["mask"][:, None]).sum())
        now = time.perf_counter()
        speed = self._rows / max(now - self._started, 1e-9)
        padding = 1 - self._tokens / max(self._slots, 1)
        text = f"{speed:7.0f} examples/s  padding {padding:4.0%}  {note}"
        self._progress.update(self._task, advance=1, note=text)
        if not self._console.is_terminal and now - self._said >= 10 and processes.first():
            self._said = now
            print(f"{self._label}  {self._done}/{self._total}  {text}", file=sys.stderr, flush=True)

    def skip(self, batches: int) -> None:
        """So many batches were done before."""
        self._done += batches
        self._progress.update(self._task, advance=batches)

    def stop(self) -> None:
        """Takes the bar down."""
        self._progress.stop()


@contextmanager
def bar(label: str, total: int, console: Console, done: int = 0) -> Iterator[Bar]:
    """A `Bar` that is taken down whatever happens."""
    made = Bar(label, total, console, done)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def counter(label: str, console: Console) -> Iterator[Callable[[int], None]]:
    """Gives a function that adds rows to a count whose end is not known, shown with rows/s."""
    started, done = time.perf_counter(), 0
    with console.status(f"{label}  0 rows") as status:

        def add(rows: int) -> None:
            nonlocal done
            done += rows
            speed = done / max(time.perf_counter() - started, 1e-9)
            status.update(f"{label}  {done:,} rows  {speed:,.0f} rows/s")

        yield add
