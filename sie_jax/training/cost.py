"""What one piece of work has cost so far, kept in a small file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sie_jax import processes
from sie_jax.files import read_json, write_json


class Cost(NamedTuple):
    """Seconds, examples, and forward passes over one example that the work amounts to.

    A forward pass counts 1, a full backward pass 2, a backward pass for norms alone 1.
    """

    seconds: float = 0.0
    examples: int = 0
    forward_equivalents: int = 0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Cost":
        """The cost whose fields these are; TypeError where they are no numbers or others."""
        cost = cls(**fields)
        if not all(type(one) in (int, float) for one in cost):
            raise TypeError("a cost is no number")
        return cost

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]  # not of tuples
        return Cost(
            self.seconds + other.seconds,
            self.examples + other.examples,
            self.forward_equivalents + other.forward_equivalents,
        )


class CostMeter:
    """Adds up the seconds of every process that worked on one thing, and keeps what it charged.

    The file is rewritten at every `tick`, at most once a second: a killed process loses the seconds
    since its last tick. Of several processes at once the first one counts. A file that cannot be
    read counts as no file: its seconds are lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = read(path)
        self._started = self._ticked = time.perf_counter()

    @property
    def recorded(self) -> Cost:
        """What was written down before this meter was made."""
        return self._before

    @property
    def seconds(self) -> float:
        """Seconds so far, of all processes."""
        return self._before.seconds + time.perf_counter() - self._started

    def tick(self, *, force: bool = False) -> None:
        """Writes the seconds down, unless that was done within the last second."""
        now = time.perf_counter()
        if force or now - self._ticked >= 1.0:
            self._ticked = now
            self._write()

    def charge(self, *, examples: int, forward_equivalents: int) -> None:
        """Says what the work comes to once it is done; saying it again changes nothing."""
        self._before = self._before._replace(
            examples=examples, forward_equivalents=forward_equivalents
        )
        self._write()

    def _write(self) -> None:
        if processes.first():
            write_json(self._path, self._before._replace(seconds=self.seconds)._asdict())


def read(path: Path) -> Cost:
    """What a meter wrote; nothing where the file is missing or damaged."""
    try:
        return Cost.from_json(read_json(path))
    except (OSError, ValueError, TypeError):
        return Cost()
