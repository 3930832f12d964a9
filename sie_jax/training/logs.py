"""What a run leaves behind while it goes on: metrics.jsonl, a lasting clock, a progress bar."""

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
from sie_jax.files import whole, write_json
from sie_jax.training.tracking import Tracker


class MetricsLog:
    """metrics.jsonl: one line per report, each with its run and step; `trackers` are told too.

    What no two runs have alike, times and memory, is in speed.jsonl beside it. Of several processes
    the first one writes.
    """

    def __init__(self, path: Path, trackers: Sequence[Tracker] = ()) -> None:
        self._path, self._speed = path, path.with_name("speed.jsonl")
        self._trackers = trackers

    def rewind(self, run: str, step: int) -> None:
        """Drops a run's lines after `step`, and a torn last line: what a resume does again."""
        if not processes.first():
            return
        for tracker in self._trackers:
            tracker.start(run, step)
        for path in (self._path, self._speed):
            if not path.exists():
                continue
            lines = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that was being written when the process died
                if record["run"] != run or record["step"] <= step:
                    lines.append(line)
            with whole(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

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
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines, oldest first."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]


class Clock:
    """Seconds spent on one piece of work, added up over every process that worked on it.

    Kept in a small file that is rewritten at every `tick`, at most once a second: what a killed
    process spent after its last tick is all that is lost. Of several at once the first one counts.
    The file also keeps what the work was charged: examples, and forward passes of one example.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_text()) if path.exists() else {}
        self._before = kept.pop("seconds", 0.0)
        self._charged: dict[str, int] = kept
        self._started = self._ticked = time.perf_counter()

    @property
    def recorded(self) -> float:
        """Seconds that were written down before this clock was made."""
        return self._before

    @property
    def examples(self) -> int:
        """Examples that the work was charged, 0 before it is done."""
        return self._charged.get("examples", 0)

    @property
    def forward_equivalents(self) -> int:
        """Forward passes of one example that the work was charged, 0 before it is done."""
        return self._charged.get("forward_equivalents", 0)

    @property
    def seconds(self) -> float:
        """Seconds spent so far, by all processes."""
        return self._before + time.perf_counter() - self._started

    def tick(self, *, force: bool = False) -> None:
        """Writes the seconds down, unless that was done within the last second."""
        now = time.perf_counter()
        if processes.first() and (force or now - self._ticked >= 1.0):
            self._ticked = now
            write_json(self._path, {"seconds": self.seconds, **self._charged})

    def charge(self, *, examples: int, forward_equivalents: int) -> None:
        """Writes down what the work cost. Charged again, it costs as much, and not twice."""
        self._charged = {"examples": examples, "forward_equivalents": forward_equivalents}
        self.tick(force=True)


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
