from pathlib import Path
from typing import Any

import pytest

from sie_jax.training import cost
from sie_jax.training.cost import Cost, CostMeter


def test_costs_add_up() -> None:
    assert Cost(1.5, 10, 30) + Cost(0.5, 5, 10) == Cost(2.0, 15, 40)
    assert sum([Cost(1, 1, 1), Cost(2, 2, 2)], start=Cost()) == Cost(3, 3, 3)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that is set by hand."""

    class Now:
        time = 100.0

    monkeypatch.setattr(cost.time, "perf_counter", lambda: Now.time)
    return Now


def test_seconds_add_up_over_processes(tmp_path: Path, now: Any) -> None:
    path = tmp_path / "cost.json"
    first = CostMeter(path)
    now.time += 2.5
    assert first.seconds == 2.5
    first.tick()
    now.time += 0.75
    first.tick()  # within a second of the last: not written, and lost when the process dies
    second = CostMeter(path)
    assert second.recorded.seconds == 2.5
    now.time += 4.0
    assert second.seconds == 6.5
    second.tick(force=True)
    assert cost.read(path).seconds == 6.5
    second.tick(force=True)  # a second tick counts nothing twice
    assert cost.read(path).seconds == 6.5
    second.charge(examples=3, forward_equivalents=9)
    assert cost.read(path) == Cost(6.5, 3, 9)


def test_work_that_was_never_begun_cost_nothing(tmp_path: Path) -> None:
    assert CostMeter(tmp_path / "cost.json").recorded == Cost()


def test_what_is_charged_is_set_and_not_added(tmp_path: Path) -> None:
    for _ in range(2):
        CostMeter(tmp_path / "one.json").charge(examples=7, forward_equivalents=21)
    assert cost.read(tmp_path / "one.json")[1:] == (7, 21)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"hours": 1}', b"\xff", b"[" * 100_000, b'{"seconds": "x"}']
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.json").write_bytes(content)
    meter = CostMeter(tmp_path / "one.json")
    assert meter.recorded == Cost()
    meter.charge(examples=1, forward_equivalents=3)
    assert cost.read(tmp_path / "one.json").examples == 1
