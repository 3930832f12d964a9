"""What a terminal shows of long work: a bar where the end is known, else a count."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sie_jax import processes
from sie_jax.telling import silence, spoke


class Bar:
    """A bar with examples/s, padding share and time left; a line every ten seconds elsewhere."""

    def __init__(self, label: str, total: int, console: Console, done: int = 0) -> None:
        self._label, self._total, self._console = label, total, console
        self._done, self._rows, self._slots, self._tokens = done, 0, 0, 0
        self._started = self._said = time.perf_counter()
        self._first: tuple[float, int] | None = None
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
        self._first = self._first or (now, self._done)  # after it everything is compiled
        if self._console.is_terminal:
            spoke()
        elif now - self._said >= 10 and processes.first():
            self._said = now
            line = f"{self._label}  {self._done}/{self._total}  {text}{self._left(now)}"
            print(line, file=sys.stderr, flush=True)
            spoke()

    def _left(self, now: float) -> str:
        """The time that is left at the speed since the first batch; "" where there is none yet."""
        began, done = self._first or (now, self._done)
        if self._done == done:
            return ""
        seconds = (now - began) / (self._done - done) * (self._total - self._done)
        return f"  {duration(seconds)} left"

    def skip(self, batches: int) -> None:
        """So many batches were done before."""
        self._done += batches
        self._progress.update(self._task, advance=batches)

    def stop(self) -> None:
        """Takes the bar down."""
        self._progress.stop()


def duration(seconds: float) -> str:
    """In the two greatest units.

    >>> duration(3725), duration(59.7)
    ('1 h 2 min', '1 min 0 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
            text = f"{label}  {done:,} rows  {speed:,.0f} rows/s"
            status.update(text)
            if console.is_terminal or silence() < 10 or console.quiet:
                return
            print(text, file=sys.stderr, flush=True)
            spoke()

        yield add
